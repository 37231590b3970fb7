// JSON numbers with all their digits: grammar, comparison. Pure. `exact.js` represents a number that a double cannot hold as a
// `String` object.
import { isExact } from "../exact.js";

const NUMBER = /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?$/;
const LARGEST_EXPONENT = 400; // digits beyond which numbers are compared as doubles

/**
 * Returns the number of a text as JSON writes it, with its digits; undefined if the text is not a JSON number.
 * @param {string} text
 * @returns {number | String | undefined}
 */
export function readNumber(text) {
  const trimmed = text.trim();
  if (!NUMBER.test(trimmed)) return undefined;
  return String(Number(trimmed)) === trimmed ? Number(trimmed) : Object(trimmed);
}

/** Whether a value is a number of JSON. @param {unknown} value @returns {value is number | String} */
export const isNumber = (value) => typeof value === "number" || isExact(value);

/** Splits a number into an integer and a power of ten; null if the power is too large. @param {number | String} value */
function parts(value) {
  const match = /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(String(value));
  if (!match) return null;
  const [, sign, whole, fraction = "", exponent = "0"] = match, power = Number(exponent) - fraction.length;
  return Math.abs(power) > LARGEST_EXPONENT ? null : { digits: BigInt(sign + whole + fraction), power };
}

/**
 * Compares two numbers exactly: -1, 0 or 1.
 * @param {number | String} one
 * @param {number | String} other
 */
export function compareNumbers(one, other) {
  const a = parts(one), b = parts(other);
  if (!a || !b) return Math.sign(Number(one) - Number(other)) || 0;
  const least = Math.min(a.power, b.power);
  const left = a.digits * 10n ** BigInt(a.power - least), right = b.digits * 10n ** BigInt(b.power - least);
  return left < right ? -1 : left > right ? 1 : 0;
}

/** Whether a number has no fraction; 2.0 has none. @param {number | String} value */
export function isInteger(value) {
  const number = parts(value);
  if (!number) return Number.isInteger(Number(value)) && Number.isFinite(Number(value));
  return number.power >= 0 || number.digits % 10n ** BigInt(-number.power) === 0n;
}
