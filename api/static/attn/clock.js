// Estimates the server's clock from heartbeats and `Date` headers, because the local clock may be hours off.

const NEAR = 2000; // milliseconds: a `Date` header counts whole seconds, so it corrects only more than this
let skew = 0;

/** Returns the server's time in milliseconds since 1970. For durations use `performance.now()`. */
export const now = () => Date.now() + skew;

/** Sets the clock from the time of a heartbeat. @param {unknown} at RFC 3339 */
export function setFromHeartbeat(at) {
  const time = typeof at === "string" ? Date.parse(at) : Number.NaN;
  if (!Number.isNaN(time)) skew = time - Date.now();
}

/** Sets the clock from the `Date` header of a response, if it differs by more than 2 s. @param {Response} answer */
export function setFromDate(answer) {
  const time = Date.parse(answer.headers.get("date") ?? "");
  if (!Number.isNaN(time) && Math.abs(time - now()) > NEAR) skew = time - Date.now();
}
