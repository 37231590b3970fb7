// Follows the feed over one connection; reconnects with backoff and resumes at the last cursor.
import { LEAST, MOST, pause, retryAfter } from "../backoff.js";
import { setFromDate, now } from "../clock.js";
import { parse } from "../exact.js";
import { frames, chunks } from "../sse.js";

/** @typedef {import("../types").Frame} Frame */
/** @typedef {{state: "connecting" | "live" | "down" | "full" | "ended", text: string, until?: number}} Link */

const MISSED_BEATS = 3, EXTRA_MS = 5000; // missed heartbeats, and additional milliseconds, after which the connection counts as lost
const DEFAULT_BEAT_MS = 15_000; // milliseconds between heartbeats if the response does not give them; the minimum
const LONGEST_TIMER = 2 ** 31 - 1; // milliseconds; beyond it `setTimeout` fires at once

/** @type {Link} */
export const CONNECTING = { state: "connecting", text: "Connecting" };

/**
 * Returns the milliseconds without a byte after which the connection counts as lost.
 * @param {string | null} interval between heartbeats, seconds: header `attn-heartbeat`
 */
export function silenceLimit(interval) {
  const beat = 1000 * Number(interval ?? Number.NaN);
  return Math.min(MISSED_BEATS * (beat > 0 && Number.isFinite(beat) ? Math.max(beat, DEFAULT_BEAT_MS) : DEFAULT_BEAT_MS) + EXTRA_MS, LONGEST_TIMER);
}

/**
 * Follows the feed until `signal` is aborted or the session has ended.
 * @param {object} how
 * @param {() => string | null} how.cursor returns the cursor to resume at
 * @param {(frames: Frame[]) => void} how.onFrames
 * @param {(link: Link) => void} how.onLink
 * @param {AbortSignal} how.signal
 * @param {EventTarget} how.wake a `wake` event ends the wait before the next attempt; at most one attempt a second
 * @param {number} how.limit
 * @param {typeof waitOrWake} [how.sleep]
 */
export async function followFeed({ cursor, onFrames, onLink, signal, wake, limit, sleep = waitOrWake }) {
  let failures = 0;
  while (!signal.aborted) {
    const began = performance.now();
    /** @type {number | null} */
    let requested = null;
    /** @type {Link} */
    let link = { state: "down", text: "Connection lost" };
    const line = new AbortController();
    const stop = () => line.abort();
    signal.addEventListener("abort", stop);
    let limitOfSilence = silenceLimit(null), quiet = setTimeout(stop, limitOfSilence);
    try {
      /** @type {Record<string, string>} */
      const headers = { accept: "text/event-stream" };
      const last = cursor();
      if (last !== null) headers["last-event-id"] = last;
      const answer = await fetch(`/org/me/feed?limit=${limit}`, { headers, signal: line.signal, cache: "no-store" });
      setFromDate(answer);
      if (answer.status === 401) return onLink({ state: "ended", text: "Your session has ended" });
      if (answer.ok && answer.body) {
        limitOfSilence = silenceLimit(answer.headers.get("attn-heartbeat"));
        for await (const frame of frames(withActivity(answer.body, () => {
          clearTimeout(quiet);
          quiet = setTimeout(stop, limitOfSilence);
        }), parse)) {
          requested = frame.retry ?? requested;
          if (!frame.id) continue;
          if (link.state !== "live") onLink((link = { state: "live", text: "Live" }));
          failures = 0;
          onFrames([frame]);
        }
        link = { state: "down", text: "Connection lost" };
      } else {
        const wait = retryAfter(answer.headers.get("retry-after"), now());
        requested = wait === null ? null : 1000 * wait;
        const said = await answer.json().catch(() => null);
        link = answer.status === 429
          ? { state: "full", text: `You have ${Number(said?.limit) || "too many"} live connections open, which is the limit. Close attn in another browser or window; this one reconnects by itself.` }
          : { state: "down", text: "attn is not ready" };
      }
    } catch (problem) {
      // A network error is a TypeError, the silence limit an AbortError. Any other exception is a defect of a frame or of this page.
      if (!(problem instanceof TypeError || problem instanceof DOMException)) globalThis.reportError?.(problem);
      link = { state: "down", text: "Connection lost" };
    } finally {
      clearTimeout(quiet);
      signal.removeEventListener("abort", stop);
    }
    if (signal.aborted) return;
    failures += 1;
    const took = performance.now() - began, least = Math.max(0, LEAST - took);
    // The first wait is the edge's `retry`, which already has jitter; repeated failures back off.
    const wait = failures === 1 && requested !== null && took > LEAST ? Math.min(requested, MOST) : pause(failures, requested);
    onLink({ ...link, until: Date.now() + wait });
    await sleep(Math.max(wait, least), signal, wake, least);
  }
}

/**
 * Yields the chunks and calls `each` for every one: a large frame may take longer than a heartbeat interval.
 * @param {ReadableStream<Uint8Array>} bytes
 * @param {() => void} each
 */
async function* withActivity(bytes, each) {
  for await (const chunk of chunks(bytes)) {
    each();
    yield chunk;
  }
}

/**
 * Waits; a `wake` event ends the wait, but not before `least` milliseconds.
 * @param {number} wait milliseconds
 * @param {AbortSignal} signal
 * @param {EventTarget} wake
 * @param {number} least milliseconds
 * @returns {Promise<void>}
 */
function waitOrWake(wait, signal, wake, least) {
  return new Promise((resolve) => {
    const began = performance.now();
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      wake.removeEventListener("wake", woken);
      resolve();
    };
    let timer = setTimeout(done, wait);
    const woken = () => {
      clearTimeout(timer);
      timer = setTimeout(done, Math.max(0, least - (performance.now() - began)));
    };
    signal.addEventListener("abort", done);
    wake.addEventListener("wake", woken);
  });
}
