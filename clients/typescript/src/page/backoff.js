// Computes the wait before a request is retried (exponential backoff with jitter, `Retry-After`). Pure: the time and the
// random number are arguments.

export const LEAST = 1000; // milliseconds: a failing server gets at most one request a second
const FIRST = 600, LONGEST = 20_000; // milliseconds; doubles after each failure
export const MOST = 300_000; // milliseconds: a longer `Retry-After` is cut to this; the button "Try now" ends the wait
const DAY = 86_400; // seconds
const JITTER = 0.3; // share of the wait that is added at random, so that clients don't retry at the same moment

/**
 * Returns the seconds of a `Retry-After`, given as seconds or as an HTTP date, at most a day. Null if it is missing, negative or
 * malformed.
 * @param {string | null} value
 * @param {number} now milliseconds, by the server's clock
 * @returns {number | null}
 */
export function retryAfter(value, now) {
  const text = value?.trim() ?? "";
  if (/^\d+$/.test(text)) return Math.min(Number(text), DAY);
  if (!/^[A-Z][a-z]{2,8},? /.test(text)) return null; // Date.parse takes "-5" and "1.5" for dates
  const at = Date.parse(text);
  return Number.isNaN(at) ? null : Math.min(Math.max(0, Math.ceil((at - now) / 1000)), DAY);
}

/**
 * Returns the milliseconds to wait after the n-th failure in a row: the larger of the server's request and the backoff.
 * @param {number} failures from 1
 * @param {number | null} [requested] milliseconds, by the server
 * @param {number} [random] from 0 to 1
 */
export function pause(failures, requested = null, random = Math.random()) {
  const own = Math.min(FIRST * 2 ** Math.min(failures - 1, 16), LONGEST);
  const asked = requested !== null && requested >= 0 ? Math.min(requested, MOST) : 0;
  return Math.max(own, asked, LEAST) * (1 + JITTER * random);
}
