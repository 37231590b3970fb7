// Arguments of an action: fields to edit them, the new arguments, and what differs. Pure. JSON types and digits of numbers are kept.
import { isExact, parse, stringify } from "../exact.js";
import { isNumber, readNumber } from "./numbers.js";

/** @typedef {import("../types").Action} Action */
/** @typedef {{name: string, editable: boolean, kind: "string" | "number" | "boolean" | "choice" | "json", choices: string[], initial: string, missing: boolean}} ArgField */
/** @typedef {{path: string[], before: any, after: any}} Change `undefined`: not there */

/** Whether a person may change an argument. @param {Action} action @param {string} name */
export const isEditable = ({ editable }, name) => editable === true || (Array.isArray(editable) && editable.includes(name));

/** Whether arguments may be added and removed, not only changed. @param {Action} action */
export const isFree = ({ editable }) => editable === true;

/** @param {unknown} value @param {any} schema of this argument @returns {ArgField["kind"]} */
function kindOf(value, schema) {
  if (typeof value === "string") return Array.isArray(schema?.enum) && schema.enum.includes(value) && schema.enum.every((/** @type {unknown} */ one) => typeof one === "string") ? "choice" : "string";
  if (typeof value === "boolean") return "boolean";
  return isNumber(value) ? "number" : "json";
}

/** Returns a value as the text of its field. @param {unknown} value */
const textOf = (value) => (typeof value === "string" ? value : value === undefined ? "" : stringify(value, 2));

/**
 * Returns a field for each argument, in the order of the source, then for editable names that have no value.
 * @param {Action} action
 * @returns {ArgField[]}
 */
export function argFields(action) {
  const args = action.args ?? {}, schemas = /** @type {any} */ (action.args_schema)?.properties ?? {};
  const absent = Array.isArray(action.editable) ? action.editable.filter((name) => !Object.hasOwn(args, name)) : [];
  return [...Object.keys(args), ...absent].map((name) => {
    const missing = !Object.hasOwn(args, name), value = missing ? undefined : args[name], schema = Object.hasOwn(schemas, name) ? schemas[name] : undefined;
    const kind = missing ? "json" : kindOf(value, schema);
    return { name, editable: isEditable(action, name), kind, choices: kind === "choice" ? schema.enum : [], initial: textOf(value), missing };
  });
}

/**
 * Reads the fields of the editor.
 * @param {Action} action
 * @param {readonly ArgField[]} fields
 * @param {Record<string, string>} entries texts by name; a field that was not touched keeps its value
 * @returns {{args: Record<string, any>, errors: Record<string, string>}} errors by path: `args.NAME`
 */
export function readArgs(action, fields, entries) {
  /** @type {Record<string, any>} */
  const args = Object.create(null);
  /** @type {Record<string, string>} */
  const errors = {};
  for (const field of fields) {
    const { name, kind, initial, missing, editable } = field;
    const text = Object.hasOwn(entries, name) ? entries[name] : initial;
    if (!editable || text === initial) {
      if (!missing) args[name] = (action.args ?? {})[name];
      continue;
    }
    const value = kind === "string" || kind === "choice" ? text : kind === "boolean" ? text === "true" : kind === "number" ? readNumber(text) : readJson(text);
    if (value === undefined) errors[`args.${name}`] = kind === "number" ? "Enter a number such as 12 or 0.5." : "This is not valid JSON. A text needs quotation marks.";
    else args[name] = value;
  }
  return { args, errors };
}

/**
 * Returns the texts of the fields for new arguments; null if fields can't show them, because names or types differ.
 * @param {readonly ArgField[]} fields
 * @param {Record<string, any>} args
 * @returns {Record<string, string> | null}
 */
export function entriesOf(fields, args) {
  /** @type {Record<string, string>} */
  const entries = {};
  if (Object.keys(args).some((name) => !fields.some((field) => field.name === name))) return null;
  for (const { name, kind, initial, choices, missing } of fields) {
    if (!Object.hasOwn(args, name)) {
      if (missing) continue;
      return null;
    }
    const made = kindOf(args[name], { enum: choices });
    if (kind !== "json" && made !== kind) return null;
    const text = kind === "json" ? stringify(args[name], 2) : textOf(args[name]);
    if (text !== initial) entries[name] = text;
  }
  return entries;
}

/** @param {string} text @returns {any} undefined: not JSON */
function readJson(text) {
  try {
    return parse(text);
  } catch {
    return undefined;
  }
}

/**
 * Reads all arguments from one JSON text.
 * @param {string} text
 * @returns {{args: Record<string, any>, errors: Record<string, string>}}
 */
export function readArgsText(text) {
  const args = readJson(text);
  const fits = typeof args === "object" && args !== null && !Array.isArray(args) && !isExact(args);
  return fits ? { args, errors: {} } : { args: {}, errors: { args: args === undefined ? "This is not valid JSON." : "The arguments must be a JSON object: { … }" } };
}

/** @param {unknown} value @returns {value is Record<string, any>} */
const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value) && !isExact(value);

const MOST_CHANGES = 500, DEEPEST = 100; // changes that are listed, and levels, as many as an event may have

/**
 * Returns the smallest members that differ, as the edge's JSON pointers name them: a list that changed is one change.
 * @param {any} before
 * @param {any} after
 * @returns {Change[]}
 */
export function changes(before, after) {
  /** @type {Change[]} */
  const found = [];
  /** @param {any} one @param {any} other @param {string[]} path */
  const compare = (one, other, path) => {
    if (found.length >= MOST_CHANGES) return;
    if (isObject(one) && isObject(other) && path.length < DEEPEST) {
      for (const name of new Set([...Object.keys(one), ...Object.keys(other)])) {
        compare(Object.hasOwn(one, name) ? one[name] : undefined, Object.hasOwn(other, name) ? other[name] : undefined, [...path, name]);
      }
    } else if (one === undefined || other === undefined ? one !== other : stringify(one) !== stringify(other)) found.push({ path, before: one, after: other });
  };
  compare(before, after, []);
  return found;
}

/** Returns a path as text: `labels.team`, `["a.b"].c`. @param {readonly string[]} path */
export const pathText = (path) => path.map((name, place) => (/^[\w$-]+$/.test(name) ? (place ? `.${name}` : name) : `[${JSON.stringify(name)}]`)).join("");
