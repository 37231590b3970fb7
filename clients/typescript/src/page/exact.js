// Parses JSON without changing the digits of numbers. `JSON.parse` rounds 9007199254740993 and reads 0.10 as 0.1.

// Numbers that may not be what `String(Number(text))` gives. A match within a string only costs time.
const SUSPECT = /(?:^|[:,[])\s*(?:-0|-?(?:\d{16}|\d+[.eE]))/;
const TOKENS = /"[^"\\]*(?:\\[^][^"\\]*)*"|-?\d[\d.eE+-]*/g;
/** Prefix of a string that stands for a number. It is random, so no text of an event can imitate a number. */
const MARK = `${crypto.getRandomValues(new Uint32Array(4)).join("-")}:`;

/**
 * Whether a value is a number that a double can't hold as written. It is a `String` object: `JSON.parse` never makes one, and
 * structured clone (other tabs) keeps it.
 * @param {unknown} value
 * @returns {value is String}
 */
export const isExact = (value) => value instanceof String;

/**
 * Parses like `JSON.parse`; a number whose digits would be lost becomes a `String` object of them.
 * @param {string} text
 * @returns {any}
 */
export function parse(text) {
  if (!SUSPECT.test(text)) return JSON.parse(text);
  let marked = false;
  const made = text.replace(TOKENS, (token) => {
    if (token[0] === '"' || String(Number(token)) === token) return token;
    marked = true;
    return `"${MARK}${token}"`;
  });
  const parsed = { root: JSON.parse(made) };
  if (marked) {
    JSON.parse(text); // throws if the text is not JSON: a string in place of the invalid number `01` would hide that
    restore(parsed);
  }
  return parsed.root;
}

/** Replaces marked strings by exact numbers. Iterative, because foreign text decides the depth. @param {any} top */
function restore(top) {
  const stack = [top];
  for (let at = stack.pop(); at !== undefined; at = stack.pop()) {
    for (const name of Object.keys(at)) {
      const value = at[name];
      if (typeof value === "string" && value.startsWith(MARK)) at[name] = Object(value.slice(MARK.length));
      else if (typeof value === "object" && value !== null) stack.push(value);
    }
  }
}

/**
 * Serialises like `JSON.stringify`, with the digits of exact numbers.
 * @param {unknown} value
 * @param {number} [indent]
 */
export function stringify(value, indent) {
  const text = JSON.stringify(value, function (name, one) {
    const value = /** @type {any} */ (this)[name]; // `one` is the result of toJSON, or the text of a String object
    return isExact(value) ? MARK + value : one;
  }, indent);
  return text?.replaceAll(new RegExp(`"${MARK}([^"]*)"`, "g"), "$1") ?? "";
}
