// HTTP client of the page: requests, idempotent writes with retries, error texts.
import { pause, retryAfter } from "./backoff.js";
import { setFromDate, now } from "./clock.js";
import { parse, stringify } from "./exact.js";

/**
 * @typedef {object} Answer
 * @property {number} status 0: no response
 * @property {any} data the JSON, or null
 * @property {number | null} wait seconds of `Retry-After`, or null; never negative
 */

const MAX_TRIES = 3, MAX_WAIT_MS = 5000; // requests per write, and milliseconds between two: a user waits for the result

/** Returns a new idempotency key. `randomUUID` is not available on pages loaded over plain http. */
export const newIdempotencyKey = () => crypto.randomUUID?.() ?? crypto.getRandomValues(new Uint32Array(4)).join("-");

/** @param {string} name */
const readCookies = (name) => document.cookie.split("; ").filter((one) => one.startsWith(`${name}=`)).map((one) => one.slice(name.length + 1));

/** @param {string} name */
export const readCookie = (name) => readCookies(name)[0] ?? "";

let sessionCsrf = ""; // CSRF value of the session, from the response header X-CSRF-Token

/** Returns the CSRF value for a write. If several cookies have its name (another host of the parent domain may set one), the
 *  edge is asked which value belongs to the session. */
async function csrfHeader() {
  const all = readCookies("attn_csrf");
  if (all.length > 1 && !all.includes(sessionCsrf)) await request("GET", "/org/me");
  return all.includes(sessionCsrf) ? sessionCsrf : all[0] ?? "";
}

/**
 * Sends one request; adds the CSRF header to writes. Never throws: without a response the status is 0.
 * @param {string} method
 * @param {string} path
 * @param {unknown} [body]
 * @param {Record<string, string>} [headers]
 * @returns {Promise<Answer>}
 */
export async function request(method, path, body, headers = {}) {
  /** @type {Record<string, string>} */
  const all = { accept: "application/json", ...headers };
  if (method !== "GET") all["x-csrf-token"] = await csrfHeader();
  if (body !== undefined) all["content-type"] = "application/json";
  try {
    const answer = await fetch(path, {
      method, headers: all, body: body === undefined ? undefined : stringify(body), cache: "no-store",
    });
    setFromDate(answer);
    sessionCsrf = answer.headers.get("x-csrf-token") ?? sessionCsrf;
    const text = await answer.text();
    return { status: answer.status, data: text ? json(text) : null, wait: retryAfter(answer.headers.get("retry-after"), now()) };
  } catch {
    return { status: 0, data: null, wait: null };
  }
}

/** @param {string} text */
function json(text) {
  try {
    return parse(text);
  } catch {
    return null; // not JSON, for example an error page of a proxy
  }
}

/**
 * Sends a write with an Idempotency-Key and repeats it, at most twice, after 503 or without a response. The key makes the
 * edge apply it once.
 * @param {string} method
 * @param {string} path
 * @param {unknown} [body]
 * @param {number} [revision] of the item that was shown
 * @param {string} [key] of an earlier attempt of the same write
 * @returns {Promise<Answer>}
 */
export async function sendWrite(method, path, body, revision, key = newIdempotencyKey()) {
  /** @type {Record<string, string>} */
  const headers = { "idempotency-key": key };
  if (revision !== undefined) headers["if-match"] = `"${revision}"`;
  for (let tries = 1; ; tries++) {
    const answer = await request(method, path, body, headers);
    if (tries === MAX_TRIES || (answer.status !== 503 && answer.status !== 0)) return answer;
    await new Promise((done) => setTimeout(done, Math.min(pause(tries, waitOf(answer)), MAX_WAIT_MS)));
  }
}

/** Returns the wait that the edge requested, in milliseconds. @param {Answer} answer */
export const waitOf = ({ wait }) => (wait === null ? null : 1000 * wait);

/** @param {Answer} answer */
export const ok = (answer) => answer.status >= 200 && answer.status < 300;

/**
 * Returns the reason of a failed request, as a text for the user.
 * @param {Answer} answer
 * @returns {string}
 */
export function explain({ status, data, wait }) {
  const seconds = wait === null ? "a moment" : `${wait} s`;
  switch (status) {
    case 0: return "attn did not answer, so the change is not confirmed. Check your connection and try again.";
    case 401: return "Your session has ended. Sign in again.";
    case 403: return "The request did not carry the CSRF value of your session. Reload the page and try again.";
    case 404: return "The item does not exist, or it is no longer addressed to you.";
    case 409: return "Its source decides this, not the inbox. Open it there.";
    case 412: return "It has changed since you saw it. Review it and try again.";
    case 413: return "The request is larger than attn accepts. Select fewer items.";
    case 429: return `Too many changes at once. Try again in ${seconds}.`;
    case 503: return "attn could not confirm the change in time. It may still take effect; check the list.";
    default: return data?.error ? `attn says: ${data.error}` : `attn answered with HTTP status ${status}.`;
  }
}
