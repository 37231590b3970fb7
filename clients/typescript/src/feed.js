// The live feed of a user's inbox: folded, with reconnects and exact resume on any edge.
import { ERRORS, RequestFailed } from "./errors.js";
import { ServerClock, sleep } from "./http.js";
import { pause, retryAfter } from "./page/backoff.js";
import { parse } from "./page/exact.js";
import { apply, EMPTY } from "./page/fold.js";
import { frames } from "./page/sse.js";

/** @typedef {import("./page/types").Inbox} Inbox */
/** @typedef {import("./page/types").Frame} Frame */

const HEARTBEAT = 15, SILENT_BEATS = 3; // seconds between heartbeats; heartbeats without a byte after which the connection is dead

/**
 * Yields each new state of the inbox of a token's user, with the frame that led to it. Reconnects with backoff and
 * `Last-Event-ID`. Ends when `signal` aborts. Throws Unauthorized if the token expired.
 * @param {object} how
 * @param {string} how.url
 * @param {string} how.token
 * @param {number} [how.limit] the window: the first N items of the ranked list
 * @param {Inbox} [how.inbox] a kept copy to resume from, folded with the same limit
 * @param {AbortSignal} [how.signal]
 * @param {typeof fetch} [how.fetch]
 * @returns {AsyncGenerator<{inbox: Inbox, frame: Frame}>}
 */
export async function* follow({ url, token, limit = 500, inbox = EMPTY, signal, fetch: send = (...given) => fetch(...given) }) {
  const clock = new ServerClock();
  let failures = 0;
  /** @type {number | null} */
  let requested = null;
  while (!signal?.aborted) {
    const line = new AbortController(), stop = () => line.abort();
    signal?.addEventListener("abort", stop, { once: true });
    let silence = 1000 * SILENT_BEATS * HEARTBEAT, quiet = setTimeout(stop, silence);
    try {
      /** @type {Record<string, string>} */
      const headers = { authorization: `Bearer ${token}`, accept: "text/event-stream" };
      if (inbox.cursor !== null) headers["last-event-id"] = inbox.cursor;
      const answer = await send(`${url.replace(/\/+$/, "")}/org/me/feed?limit=${limit}`, { headers, signal: line.signal });
      clock.observe(answer.headers.get("date"));
      if (answer.ok && answer.body) {
        const beat = Number(answer.headers.get("attn-heartbeat") ?? HEARTBEAT);
        silence = Math.min(1000 * SILENT_BEATS * (beat > 0 ? beat : HEARTBEAT), 2 ** 31 - 1);
        for await (const frame of frames(withActivity(answer.body, () => {
          clearTimeout(quiet);
          quiet = setTimeout(stop, silence);
        }), parse)) {
          requested = frame.retry ?? requested;
          failures = 0;
          const next = apply(inbox, frame);
          if (next === inbox) continue;
          inbox = next;
          yield { inbox, frame };
        }
      } else if (answer.status === 429 || answer.status >= 500) {
        const wait = retryAfter(answer.headers.get("retry-after"), clock.estimate());
        requested = wait === null ? null : 1000 * wait;
      } else {
        throw new (ERRORS[answer.status] ?? RequestFailed)(`GET /org/me/feed was refused with status ${answer.status}`, answer.status);
      }
    } catch (error) {
      if (error instanceof RequestFailed) throw error;
    } finally {
      clearTimeout(quiet);
      signal?.removeEventListener("abort", stop);
      line.abort();
    }
    await sleep(pause(++failures, requested), signal).catch(() => {});
  }
}

/** @param {ReadableStream<Uint8Array>} body @param {() => void} onBytes */
async function* withActivity(body, onBytes) {
  const reader = body.getReader();
  try {
    for (let next = await reader.read(); !next.done; next = await reader.read()) {
      onBytes();
      yield next.value;
    }
  } finally {
    reader.releaseLock();
  }
}
