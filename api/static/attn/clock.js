// The server's clock, as far as answers tell it: a computer's own may be hours off.

const NEAR = 2000; // milliseconds: a `Date` header counts whole seconds, so it corrects only more than this
let skew = 0;

/** Milliseconds since 1970 by the server's clock. For lengths of time use `performance.now()`. */
export const now = () => Date.now() + skew;

/** A time of the server that was just heard, to the millisecond. @param {unknown} at RFC 3339 */
export function heard(at) {
  const time = typeof at === "string" ? Date.parse(at) : Number.NaN;
  if (!Number.isNaN(time)) skew = time - Date.now();
}

/** An answer that just came, with its `Date`. @param {Response} answer */
export function answered(answer) {
  const time = Date.parse(answer.headers.get("date") ?? "");
  if (!Number.isNaN(time) && Math.abs(time - now()) > NEAR) skew = time - Date.now();
}
