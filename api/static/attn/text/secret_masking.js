// Detects secrets in payloads, which the page masks until the user shows them. Pure. It prefers false positives.

const NAMES = /pass(word|wd|phrase)?$|^pwd$|secret|token$|api[-_]?key|access[-_]?key|private[-_]?key|credential|authorization|cookie|bearer|session[-_]?id$|connection[-_]?string|dsn$/i;
const VALUES = [
  /^eyJ[\w-]{8,}\.[\w-]{8,}\./, // a JWT
  /^(sk|pk|rk)[-_](live|test|proj|ant)?[-_]?\w{8,}/, /^gh[pousr]_\w{20,}/, /^xox[abprs]-/, /^AKIA[0-9A-Z]{12,}/, /^glpat-/,
  /-----BEGIN [A-Z ]*PRIVATE KEY-----/,
  /:\/\/[^/\s:@]+:[^/\s@]+@/, // a URL with a password
];

/**
 * Whether a value looks like a secret, by its name or its form.
 * @param {string} name of the field, or of the enclosing field
 * @param {unknown} value
 */
export function isSecret(name, value) {
  if (value === null || typeof value === "boolean" || value === "") return false;
  if (NAMES.test(name)) return true;
  return typeof value === "string" && VALUES.some((pattern) => pattern.test(value.trim()));
}

/**
 * Whether a value or any value within it looks like a secret. Iterative, because foreign text decides the depth.
 * @param {string} name
 * @param {unknown} value
 */
export function hasSecret(name, value) {
  /** @type {[string, unknown][]} */
  const stack = [[name, value]];
  for (let at = stack.pop(); at !== undefined; at = stack.pop()) {
    if (isSecret(...at)) return true;
    const [key, inside] = at;
    if (typeof inside === "object" && inside !== null && !(inside instanceof String)) for (const [one, of] of Object.entries(inside)) stack.push([Array.isArray(inside) ? key : one, of]);
  }
  return false;
}
