// Renders a payload as names and values. Nested values are expanded, and values that look like secrets are masked until the user
// shows them. The first rendering is bounded for any payload. Numbers keep their digits.
import { isExact, stringify } from "../../exact.js";
import { linkTo } from "../../text/links.js";
import { isSecret } from "../../text/secret_masking.js";
import { truncate } from "../../text/labels.js";
import { html, useMemo, useState } from "../dom.js";
import { Icon } from "../icons.js";
import { LongText, Paged } from "../show_more.js";

const DEEPEST = 6, LONGEST = 4000, LONG_NAME = 200; // levels, and characters of a value and of a name
const LARGE = 300; // number of values above which each object shows its first entries only, and deep objects are collapsed
const MOST = 200, FEW = 20, DEEP = 2; // entries shown of an object in a small and in a large payload, and expanded levels of a large one

/** Returns a field name as words. @param {string} name */
const label = (name) => truncate(name, LONG_NAME).replace(/([a-z\d])([A-Z])/g, "$1 $2").replace(/[_-]+/g, " ").trim();

/** Whether a value is a scalar. @param {unknown} value @returns {value is string | number | boolean | null | String} */
const isPlain = (value) => value === null || typeof value !== "object" || isExact(value);

/** Counts the values within a value, up to `most`. Iterative, because foreign text decides the depth. @param {unknown} value @param {number} most */
function size(value, most) {
  const stack = [value];
  let count = 0;
  for (let at = stack.pop(); at !== undefined && count <= most; at = stack.pop()) {
    if (isPlain(at)) continue;
    const inside = Object.values(/** @type {object} */ (at));
    count += inside.length;
    for (const one of inside.slice(0, most + 1)) stack.push(one);
  }
  return count;
}

/** A secret, masked until the user shows it. @param {{name: string, value: unknown}} how */
export function Secret({ name, value }) {
  const [shown, show] = useState(false);
  return html`<span class="secret">
    ${shown ? html`<code dir="auto"><${LongText} text=${asText(value)} most=${LONGEST} /></code>` : html`<span class="mask" aria-label="hidden">••••••••</span>`}
    <button class="small" aria-pressed=${shown} onClick=${() => show(!shown)} aria-label=${`${shown ? "Hide" : "Show"} ${label(name)}`}>
      <${Icon} name="eye" size="14" /> ${shown ? "Hide" : "Show"}</button></span>`;
}

/** @param {unknown} value */
function asText(value) {
  if (typeof value === "string" || isExact(value)) return String(value);
  try {
    return stringify(value);
  } catch {
    return "too deep to show"; // `JSON.stringify` overflows the stack
  }
}

/** A button that expands its content. @param {{text: string, draw: () => any}} how */
function Folded({ text, draw }) {
  const [shown, show] = useState(false);
  return shown ? draw() : html`<button class="small" onClick=${() => show(true)}>${text}</button>`;
}

/** Whether a value is a list of plain values, which is shown in one line. @param {unknown} value @returns {value is unknown[]} */
const isFlat = (value) => Array.isArray(value) && value.every((one) => isPlain(one) && !isSecret("", one));

/** Whether a value is shown below its name, with the whole width. @param {string} name @param {unknown} value */
const isNested = (name, value) => !isPlain(value) && !isFlat(value) && !isSecret(name, value);

/** @param {{name: string, value: any, depth: number, large: boolean}} how @returns {any} */
function Value({ name, value, depth, large }) {
  if (isSecret(name, value)) return html`<${Secret} name=${name} value=${value} />`;
  if (value === null) return html`<span class="nothing">none</span>`;
  if (typeof value === "boolean") return html`<span class=${`flag ${value}`}>${value ? "yes" : "no"}</span>`;
  if (typeof value === "number" || isExact(value)) return html`<code class="number"><${LongText} text=${String(value)} most=${LONGEST} /></code>`;
  if (isFlat(value)) {
    if (!value.length) return html`<span class="nothing">empty</span>`;
    return html`<span class="tags"><${Paged} of=${value} most=${large ? FEW : MOST} one="value" draw=${(/** @type {unknown} */ one) =>
      html`<code dir="auto"><${LongText} text=${String(one)} most=${LONG_NAME} /></code>`} /></span>`;
  }
  if (typeof value === "object") {
    const inside = Object.keys(value).length;
    if (depth >= DEEPEST) return html`<${Folded} text=${`Show ${inside} deeper`} draw=${() => html`<pre tabIndex="0" dir="auto"><${LongText} text=${asText(value)} most=${LONGEST} /></pre>`} />`;
    const fields = () => html`<${Fields} of=${value} depth=${depth + 1} large=${large} />`;
    return large && depth >= DEEP ? html`<${Folded} text=${`Show ${inside}`} draw=${fields} />` : fields();
  }
  const text = String(value), href = text.length < LONGEST && /^https?:/i.test(text) ? linkTo(text) : null;
  if (href !== null) return html`<a href=${href} target="_blank" rel="noopener noreferrer">${text}</a>`;
  if (text.includes("\n") || text.length > 120) return html`<pre tabIndex="0" dir="auto"><${LongText} text=${text} most=${LONGEST} /></pre>`;
  return html`<bdi>${text}</bdi>`;
}

/** @param {{of: any, depth: number, large: boolean}} how */
function Fields({ of, depth, large }) {
  return html`<dl class=${`fields depth-${depth}`}>
    <${Paged} of=${Object.entries(of)} most=${large ? FEW : MOST} one="value" end=${(/** @type {any} */ button) => html`<div><dt></dt><dd>${button}</dd></div>`}
      draw=${(/** @type {[string, any]} */ [name, value]) => html`<div key=${name} class=${isNested(name, value) ? "nested" : ""}><dt title=${truncate(name, LONG_NAME)} dir="auto">${label(name)}</dt>
      <dd><${Value} name=${name} value=${value} depth=${depth} large=${large} /></dd></div>`} />
  </dl>`;
}

/** @param {{payload: Record<string, unknown>}} how */
export const Payload = ({ payload }) => useMemo(() => html`
  <section class="block" aria-labelledby="payload-title">
    <h3 id="payload-title">Details</h3>
    <${Fields} of=${payload} depth=${0} large=${size(payload, LARGE) > LARGE} />
  </section>`, [payload]);
