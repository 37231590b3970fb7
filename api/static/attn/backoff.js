// How long to wait before asking a server again. Pure: the time and the random number are arguments.

export const LEAST = 1000; // milliseconds between two requests to a server that failed: one a second at most
const FIRST = 600, LONGEST = 20_000; // milliseconds, doubled after each failure, where the server names none
export const MOST = 300_000; // milliseconds: a longer `Retry-After` is cut to this; "Try now" is there for whoever can't wait
const JITTER = 0.3; // share of the wait that is added at random, so that clients don't come back together

/**
 * Seconds a `Retry-After` asks for: a number of seconds or an HTTP date. Null if it is missing, negative or unreadable.
 * @param {string | null} value
 * @param {number} now milliseconds, by the server's clock
 * @returns {number | null}
 */
export function retryAfter(value, now) {
  const text = value?.trim() ?? "";
  if (/^\d+$/.test(text)) return Number(text);
  if (!/^[A-Z][a-z]{2,8},? /.test(text)) return null; // Date.parse takes "-5" and "1.5" for dates
  const at = Date.parse(text);
  return Number.isNaN(at) ? null : Math.max(0, Math.ceil((at - now) / 1000));
}

/**
 * Milliseconds to wait after the n-th failure in a row: what the server asked for, or longer while it keeps failing.
 * @param {number} failures from 1
 * @param {number | null} [told] milliseconds
 * @param {number} [random] from 0 to 1
 */
export function pause(failures, told = null, random = Math.random()) {
  const own = Math.min(FIRST * 2 ** Math.min(failures - 1, 16), LONGEST);
  const asked = told !== null && told >= 0 ? Math.min(told, MOST) : 0;
  return Math.max(own, asked, LEAST) * (1 + JITTER * random);
}
