// Renders JSON exactly: digits of numbers, types, order. Values that look like secrets are masked; invisible characters are escaped.
import { isExact, stringify } from "../../exact.js";
import { isSecret } from "../../text/secret_masking.js";
import { html, useMemo, useState } from "../dom.js";
import { Secret } from "../item/payload.js";
import { LongText } from "../show_more.js";

const LINES = 120, LONGEST = 800, DEEPEST = 60; // lines at first, characters of a line, levels
/** @typedef {{depth: number, before: string, text: string, after: string, name: string, secret: unknown}} Line `secret`: undefined, or the masked value */

const INVISIBLE = /[\p{Cf}\p{Zl}\p{Zp}\u007f-\u009f]/gu;
const escaped = (/** @type {string} */ sign) => [...sign.matchAll(/[^]/g)].map(([unit]) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`).join("");

/** Returns a JSON text with invisible characters as escapes, which mean the same. @param {string} text */
const visible = (text) => text.replace(INVISIBLE, escaped);

/** Returns a value as one line of JSON. @param {unknown} value */
export const inline = (value) => visible(stringify(value));

/**
 * Returns the lines of a JSON value with an indent of two.
 * @param {unknown} root
 * @returns {Line[]}
 */
export function jsonLines(root) {
  /** @type {Line[]} */
  const lines = [];
  /** @param {any} value @param {number} depth @param {string} name @param {string} before @param {string} after @returns {void} */
  const add = (value, depth, name, before, after) => {
    if (isSecret(name, value)) return void lines.push({ depth, before, text: "", after, name, secret: value });
    const inside = typeof value === "object" && value !== null && !isExact(value) ? Object.entries(value) : [];
    const list = Array.isArray(value), [open, close] = list ? "[]" : "{}";
    const flat = list && value.every((/** @type {unknown} */ one) => (one === null || typeof one !== "object" || isExact(one)) && !isSecret("", one));
    if (!inside.length || depth >= DEEPEST || (flat && stringify(value).length < 80)) return void lines.push({ depth, before, text: inline(value), after, name, secret: undefined });
    lines.push({ depth, before, text: open, after: "", name, secret: undefined });
    inside.forEach(([key, one], place) => add(one, depth + 1, list ? name : key, list ? "" : `${visible(JSON.stringify(key))}: `, place < inside.length - 1 ? "," : ""));
    lines.push({ depth, before: "", text: close, after, name, secret: undefined });
  };
  add(root, 0, "", "", "");
  return lines;
}

/** @param {{value: unknown, label: string}} how */
export function Json({ value, label }) {
  const lines = useMemo(() => jsonLines(value), [value]);
  const [most, show] = useState(LINES);
  const text = (/** @type {string} */ one) => html`<${LongText} text=${one} most=${LONGEST} />`;
  return html`<div class="json" role="group" aria-label=${label} tabIndex="0" dir="ltr">
    ${lines.slice(0, most).map((line, place) => html`<div key=${place} class="line" style=${{ paddingInlineStart: `${2 * Math.min(line.depth, 12)}ch` }}>
      ${line.before && html`<b>${text(line.before)}</b>`}${line.secret === undefined ? text(line.text) : html`<${Secret} name=${line.name} value=${line.secret} />`}${line.after}</div>`)}
    ${lines.length > most && html`<button class="small" onClick=${() => show(lines.length)}>Show all ${lines.length.toLocaleString()} lines</button>`}
  </div>`;
}
