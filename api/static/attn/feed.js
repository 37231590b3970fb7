// One live connection: frames as they come, again and again from where it broke off.
import { frames } from "./sse.js";

/** @typedef {import("./types").Frame} Frame */
/** @typedef {{state: "connecting" | "live" | "down" | "full" | "ended", text: string, until?: number}} Link */

const SILENCE = 50_000; // three heartbeats of 15 s and some more: after that the line is dead
const FIRST = 600, LONGEST = 20_000; // milliseconds between tries, when the edge names none

/** @type {Link} */
export const CONNECTING = { state: "connecting", text: "Connecting" };

/**
 * Follows the feed until `signal` says so or the session ends.
 * @param {object} how
 * @param {() => string | null} how.cursor where to go on
 * @param {(frames: Frame[]) => void} how.tell
 * @param {(link: Link) => void} how.status
 * @param {AbortSignal} how.signal
 * @param {EventTarget} how.wake a `wake` event: try now rather than later
 * @param {number} how.limit
 */
export async function follow({ cursor, tell, status, signal, wake, limit }) {
  let failures = 0;
  while (!signal.aborted) {
    /** @type {number | undefined} */
    let pause;
    /** @type {Link} */
    let link = { state: "down", text: "Connection lost" };
    const line = new AbortController();
    const stop = () => line.abort();
    signal.addEventListener("abort", stop);
    let quiet = setTimeout(stop, SILENCE);
    try {
      /** @type {Record<string, string>} */
      const headers = { accept: "text/event-stream" };
      const last = cursor();
      if (last !== null) headers["last-event-id"] = last;
      const answer = await fetch(`/org/me/feed?limit=${limit}`, { headers, signal: line.signal, cache: "no-store" });
      if (answer.status === 401) return status({ state: "ended", text: "Your session has ended" });
      if (answer.ok && answer.body) {
        for await (const frame of frames(answer.body)) {
          clearTimeout(quiet);
          quiet = setTimeout(stop, SILENCE);
          pause = frame.retry ?? pause;
          if (!frame.id) continue;
          if (link.state !== "live") status((link = { state: "live", text: "Live" }));
          failures = 0;
          tell([frame]);
        }
        link = { state: "down", text: "Connection lost" };
      } else {
        const told = await answer.json().catch(() => ({}));
        pause = 1000 * Number(answer.headers.get("retry-after") ?? 2);
        link = answer.status === 429
          ? { state: "full", text: `You have ${told.limit ?? "too many"} live connections open, which is the limit. Close attn in another browser or window; this one goes on by itself.` }
          : { state: "down", text: "attn is not ready" };
      }
    } catch {
      link = { state: "down", text: "Connection lost" };
    } finally {
      clearTimeout(quiet);
      signal.removeEventListener("abort", stop);
    }
    if (signal.aborted) return;
    failures += 1;
    // Not everybody at once, and slower while it stays away.
    const wait = pause ?? Math.min(FIRST * 2 ** (failures - 1), LONGEST) * (0.7 + 0.6 * Math.random());
    status({ ...link, until: Date.now() + wait });
    await rest(wait, signal, wake);
  }
}

/**
 * @param {number} wait milliseconds
 * @param {AbortSignal} signal
 * @param {EventTarget} wake
 * @returns {Promise<void>}
 */
function rest(wait, signal, wake) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      wake.removeEventListener("wake", done);
      resolve();
    };
    const timer = setTimeout(done, wait);
    signal.addEventListener("abort", done);
    wake.addEventListener("wake", done);
  });
}
