// Form of a question (the subset of JSON Schema of CONTRACT §7): its fields, their first values, and the check of what was filled in.
// Pure. The edge checks the same and answers 422 with the same paths: `form.NAME`.
import { compareNumbers, isInteger, readNumber } from "./numbers.js";

/** @typedef {import("../types").Form} Form */
/** @typedef {import("../types").FormField} FormField */
/** @typedef {string | readonly string[]} Entry what a person has filled in: text, or the chosen values of several */
/**
 * @typedef {object} Field
 * @property {string} name
 * @property {string} label
 * @property {string} help
 * @property {"text" | "line" | "email" | "uri" | "date" | "date-time" | "number" | "integer" | "boolean" | "choice" | "multi"} kind
 * @property {boolean} required
 * @property {{value: string, label: string}[]} choices
 * @property {FormField} schema
 * @property {Entry} initial
 */

const LINE = 200; // characters up to which a text has one line
const MAX_TEXT = 65_536; // characters, as at the edge
const EMAIL = /^[^@\s]+@[^@\s]+\.[^@\s]+$/, URI = /^[a-z][a-z\d+.-]*:[^\s\p{Cc}\p{Cf}]+$/iu;
const DATE = /^\d{4}-\d\d-\d\d$/, LOCAL = /^\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.\d+)?)?$/;
const MOMENT = /^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)$/;

/** @param {string} name */
const words = (name) => name.replace(/([a-z\d])([A-Z])/g, "$1 $2").replace(/[_-]+/g, " ").trim() || name;

/** @param {FormField} schema @returns {Field["kind"]} */
function kindOf(schema) {
  if (schema.type === "array") return "multi";
  if (schema.type !== "string") return schema.type;
  if (schema.enum || schema.oneOf) return "choice";
  return schema.format ?? (schema.maxLength !== undefined && schema.maxLength <= LINE ? "line" : "text");
}

/** @param {FormField} schema @returns {Field["choices"]} */
function choicesOf(schema) {
  const titled = schema.oneOf ?? schema.items?.anyOf;
  if (titled) return titled.map((one) => ({ value: one.const, label: one.title ?? one.const }));
  const { enumNames } = schema;
  return (schema.enum ?? schema.items?.enum ?? []).map((value, place) => ({ value, label: enumNames?.[place] ?? value }));
}

/** Formats a moment for an input of type `datetime-local`; the text itself if it is none. @param {string} text */
export function localMoment(text) {
  const time = new Date(text);
  if (!MOMENT.test(text) || Number.isNaN(time.getTime())) return text;
  return new Date(time.getTime() - time.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

/** @param {FormField} schema @param {Field["kind"]} kind @returns {Entry} */
const initialOf = (schema, kind) => entryOf({ kind }, schema.default);

/** Returns a value of the form as its field shows it. @param {Pick<Field, "kind">} field @param {any} value @returns {Entry} */
export function entryOf({ kind }, value) {
  if (kind === "multi") return Array.isArray(value) ? value : [];
  if (value === undefined || value === null) return "";
  return kind === "date-time" ? localMoment(String(value)) : String(value);
}

/**
 * Returns the fields of a form in the order of its properties.
 * @param {Form | undefined} form
 * @returns {Field[]}
 */
export const fieldsOf = (form) => Object.entries(form?.properties ?? {}).map(([name, schema]) => {
  const kind = kindOf(schema);
  return {
    name, label: schema.title ?? words(name), help: schema.description ?? "", kind, schema, choices: choicesOf(schema),
    required: (form?.required ?? []).includes(name), initial: initialOf(schema, kind),
  };
});

/**
 * Returns the hint about what a field accepts, or "".
 * @param {Field} field
 */
export function limitsOf({ kind, schema }) {
  const { minLength, maxLength, minimum, maximum } = schema, { minItems, maxItems } = schema;
  const range = (/** @type {unknown} */ least, /** @type {unknown} */ most, /** @type {string} */ noun) => {
    const unit = noun && ` ${noun}${String(most ?? least) === "1" ? "" : "s"}`;
    if (least !== undefined && least !== null && most !== undefined && most !== null) return String(least) === String(most) ? `exactly ${least}${unit}` : `${least} to ${most}${unit}`;
    if (least !== undefined && least !== null) return `at least ${least}${unit}`;
    return most !== undefined && most !== null ? `at most ${most}${unit}` : "";
  };
  if (kind === "multi") return range(minItems || undefined, maxItems, "choice");
  if (kind === "number" || kind === "integer") return [kind === "integer" ? "a whole number" : "a number", range(minimum, maximum, "")].filter(Boolean).join(", ");
  if (kind === "choice" || kind === "boolean" || kind === "date" || kind === "date-time") return "";
  return [kind === "email" ? "an email address" : kind === "uri" ? "an address such as https://example.org" : "", range(minLength || undefined, maxLength, "character")].filter(Boolean).join(", ");
}

/**
 * Checks one field.
 * @param {Field} field
 * @param {Entry} entry
 * @returns {{value?: any, error?: string}} without both: not filled in, and not required
 */
export function readField(field, entry) {
  const { kind, schema, required } = field;
  if (kind === "multi") return readChoices(field, /** @type {readonly string[]} */ (entry));
  const text = String(entry);
  if (text === "" || (kind !== "text" && kind !== "line" && text.trim() === "")) return required ? { error: kind === "boolean" || kind === "choice" ? "Choose one." : "Fill this in." } : {};
  switch (kind) {
    case "boolean": return { value: text === "true" };
    case "choice": return field.choices.some((one) => one.value === text) ? { value: text } : { error: "Choose one of the list." };
    case "number": case "integer": return readAmount(kind, schema, text);
    default: return readText(field, text);
  }
}

/** @param {Field} field @param {readonly string[]} chosen */
function readChoices({ schema, choices, required }, chosen) {
  const known = choices.map((one) => one.value).filter((value) => chosen.includes(value)), { minItems, maxItems } = schema;
  if (!known.length && !required) return {};
  if (!known.length && minItems !== 0 && (required || minItems)) return { error: "Choose at least one." };
  if (minItems !== undefined && minItems !== null && known.length < minItems) return { error: `Choose at least ${minItems}; ${known.length} chosen.` };
  if (maxItems !== undefined && maxItems !== null && known.length > maxItems) return { error: `Choose at most ${maxItems}; ${known.length} chosen.` };
  return { value: known };
}

/** @param {"number" | "integer"} kind @param {FormField} schema @param {string} text */
function readAmount(kind, schema, text) {
  const value = readNumber(text), { minimum, maximum } = schema;
  if (value === undefined) return { error: "Enter a number such as 12 or 0.5." };
  if (kind === "integer" && !isInteger(value)) return { error: "Enter a whole number." };
  if (minimum !== undefined && minimum !== null && compareNumbers(value, minimum) < 0) return { error: `Enter at least ${minimum}.` };
  if (maximum !== undefined && maximum !== null && compareNumbers(value, maximum) > 0) return { error: `Enter at most ${maximum}.` };
  return { value };
}

/** @param {Field} field @param {string} text */
function readText({ kind, schema, initial }, text) {
  const length = [...text].length, most = schema.maxLength ?? MAX_TEXT, { minLength } = schema;
  if (kind === "date-time") {
    // The picker has no seconds: an unchanged default keeps its own.
    const value = text === initial ? String(schema.default) : LOCAL.test(text) ? momentOf(text) : text;
    return MOMENT.test(value) && !Number.isNaN(Date.parse(value)) ? { value } : { error: "Enter a date and a time." };
  }
  if (kind === "date" && !(DATE.test(text) && isDate(text))) return { error: "Enter a date such as 2026-12-24." };
  if (kind === "email" && !EMAIL.test(text)) return { error: "Enter an email address such as ann@example.org." };
  if (kind === "uri" && !URI.test(text)) return { error: "Enter an address such as https://example.org/page." };
  if (minLength !== undefined && minLength !== null && length < minLength) return { error: `${length} characters; at least ${minLength} are needed.` };
  if (length > most) return { error: `${length} characters; at most ${most} are accepted.` };
  return { value: text };
}

/** Returns a local time as RFC 3339 in UTC; the text itself if it is no time. @param {string} local */
function momentOf(local) {
  const time = new Date(local);
  return Number.isNaN(time.getTime()) ? local : time.toISOString();
}

/** Whether a text names a day that exists. @param {string} text */
function isDate(text) {
  const time = new Date(`${text}T00:00:00Z`);
  return !Number.isNaN(time.getTime()) && time.toISOString().startsWith(text);
}

/**
 * Reads the whole form.
 * @param {readonly Field[]} fields
 * @param {Record<string, Entry>} entries by name; a field that was not touched has its first value
 * @returns {{form: Record<string, any>, errors: Record<string, string>}} errors by path
 */
export function readForm(fields, entries) {
  /** @type {Record<string, any>} */
  const form = Object.create(null);
  /** @type {Record<string, string>} */
  const errors = {};
  for (const field of fields) {
    const { value, error } = readField(field, Object.hasOwn(entries, field.name) ? entries[field.name] : field.initial);
    if (error !== undefined) errors[`form.${field.name}`] = error;
    else if (value !== undefined) form[field.name] = value;
  }
  return { form, errors };
}
