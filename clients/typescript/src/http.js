// HTTP requests that survive restarts of edges, and the server's clock. The clock of this machine does not matter.
import { ERRORS, RequestFailed, Unavailable } from "./errors.js";
import { pause, retryAfter } from "./page/backoff.js";
import { parse } from "./page/exact.js";

const TRANSIENT = [408, 425, 429, 500, 502, 503, 504];
const STEPPED = 10_000; // milliseconds: a larger difference means that the server's clock was set back

/**
 * Estimates the server's time by the `Date` of responses, in whole seconds and never ahead of it. The estimate is the
 * largest lower bound so far, therefore it is at most a second or two behind.
 */
export class ServerClock {
  /** @type {number | null} */
  #offset = null;
  #last = Number.NEGATIVE_INFINITY;

  get known() {
    return this.#offset !== null;
  }

  /** @param {string | null} date of a response that has just arrived */
  observe(date) {
    const offset = Date.parse(date ?? "") - performance.now();
    if (Number.isNaN(offset)) return;
    if (this.#offset === null || offset > this.#offset || offset < this.#offset - STEPPED) this.#offset = offset;
  }

  /** Returns the server's time in milliseconds; without any `Date`, that of this machine. */
  estimate() {
    return this.#offset === null ? Date.now() : performance.now() + this.#offset;
  }

  /** Returns the time for the next event, later than that of the event before and than `after`. @param {number} [after] */
  now(after = Number.NEGATIVE_INFINITY) {
    this.#last = Math.max(Math.floor(this.estimate()), this.#last + 1, Math.floor(after) + 1);
    return new Date(this.#last);
  }
}

/** @param {number} ms @param {AbortSignal} [signal] @returns {Promise<void>} */
export const sleep = (ms, signal) => new Promise((done, fail) => {
  if (signal?.aborted) return fail(signal.reason);
  const stop = () => {
    clearTimeout(timer);
    fail(signal?.reason);
  };
  const timer = setTimeout(() => {
    signal?.removeEventListener("abort", stop);
    done();
  }, ms);
  signal?.addEventListener("abort", stop, { once: true });
});

/** @typedef {{status: number, body: any, etag: string | null}} Response */
/**
 * @typedef {object} How
 * @property {Record<string, string>} [params]
 * @property {string} [data]
 * @property {Record<string, string>} [headers]
 * @property {number} [seconds] timeout of one attempt
 * @property {number} [patience] seconds after which Unavailable is thrown; default: never
 * @property {AbortSignal} [signal]
 */

export class Connection {
  clock = new ServerClock();

  /** @param {string} url @param {string} key @param {typeof fetch} [send] */
  constructor(url, key, send = (...given) => fetch(...given)) {
    this.url = url.replace(/\/+$/, "");
    this.authorization = `Bearer ${key}`;
    this.send = send;
  }

  /**
   * Sends a request until it is answered. Only idempotent requests may be sent this way.
   * @param {string} method @param {string} path @param {How} [how] @returns {Promise<Response>}
   */
  async request(method, path, { params = {}, data, headers = {}, seconds = 20, patience = Number.POSITIVE_INFINITY, signal } = {}) {
    const begun = performance.now(), query = new URLSearchParams(params).toString();
    for (let failures = 1; ; failures++) {
      signal?.throwIfAborted();
      let failure = "";
      /** @type {number | null} */
      let requested = null;
      const attempt = new AbortController(), stop = () => attempt.abort();
      const timer = setTimeout(stop, 1000 * seconds);
      signal?.addEventListener("abort", stop, { once: true });
      try {
        const answer = await this.send(`${this.url}${path}${query ? `?${query}` : ""}`, {
          method, body: data, headers: { authorization: this.authorization, ...headers }, signal: attempt.signal, redirect: "error",
        });
        const text = await answer.text();
        this.clock.observe(answer.headers.get("date"));
        if (!TRANSIENT.includes(answer.status)) return read(method, path, answer, text);
        const wait = retryAfter(answer.headers.get("retry-after"), this.clock.estimate());
        requested = wait === null ? null : 1000 * wait;
        failure = `status ${answer.status}: ${text.slice(0, 200)}`;
      } catch (error) {
        if (error instanceof RequestFailed) throw error;
        signal?.throwIfAborted();
        failure = String(error);
      } finally {
        clearTimeout(timer);
        signal?.removeEventListener("abort", stop);
      }
      const wait = pause(failures, requested);
      if (performance.now() + wait - begun > 1000 * patience) {
        throw new Unavailable(`${method} ${path} failed ${failures} times within ${patience} s, last with ${failure}; send it again`);
      }
      await sleep(wait, signal);
    }
  }
}

/** @param {string} method @param {string} path @param {globalThis.Response} answer @param {string} text @returns {Response} */
function read(method, path, answer, text) {
  let body = null;
  try {
    body = text ? parse(text) : null;
  } catch { /* a proxy's page; the status decides */ }
  if (answer.status < 300 || answer.status === 304) return { status: answer.status, body, etag: answer.headers.get("etag") };
  const message = `${method} ${path} was refused with status ${answer.status}: ${body?.error ?? text.slice(0, 200)}`;
  throw new (ERRORS[answer.status] ?? RequestFailed)(message, answer.status, body);
}
