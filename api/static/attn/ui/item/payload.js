// A payload as a card: names and values, nested ones folded out, secret-looking values masked until asked for. What is
// drawn at first is bounded, however large it is; numbers have the digits they came with.
import { isExact, stringify } from "../../exact.js";
import { linkTo } from "../../text/links.js";
import { isSecret } from "../../text/secret_masking.js";
import { truncate } from "../../text/labels.js";
import { html, useMemo, useState } from "../dom.js";
import { Icon } from "../icons.js";
import { LongText, Paged } from "../show_more.js";

const DEEPEST = 6, LONGEST = 4000, LONG_NAME = 200; // levels, characters of a value and of a name
const LARGE = 300; // values in all; beyond it, each object begins with its first few, and deep ones are folded in
const MOST = 200, FEW = 20, DEEP = 2; // entries of an object that is not large and of one that is; levels folded out then

/** @param {string} name */
const worded = (name) => truncate(name, LONG_NAME).replace(/([a-z\d])([A-Z])/g, "$1 $2").replace(/[_-]+/g, " ").trim();

/** @param {unknown} value @returns {value is string | number | boolean | null | String} */
const isPlain = (value) => value === null || typeof value !== "object" || isExact(value);

/** Values within it, as far as `most`; not recursive: the depth is the text's. @param {unknown} value @param {number} most */
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

/** Masked until it is asked for. @param {{name: string, value: unknown}} how */
function Secret({ name, value }) {
  const [shown, show] = useState(false);
  return html`<span class="secret">
    ${shown ? html`<code dir="auto"><${LongText} text=${asText(value)} most=${LONGEST} /></code>` : html`<span class="mask" aria-label="hidden">••••••••</span>`}
    <button class="small" aria-pressed=${shown} onClick=${() => show(!shown)} aria-label=${`${shown ? "Hide" : "Show"} ${worded(name)}`}>
      <${Icon} name="eye" size="14" /> ${shown ? "Hide" : "Show"}</button></span>`;
}

/** @param {unknown} value */
function asText(value) {
  if (typeof value === "string" || isExact(value)) return String(value);
  try {
    return stringify(value);
  } catch {
    return "too deep to show"; // for the browser's own JSON
  }
}

/** Opened when asked for. @param {{text: string, draw: () => any}} how */
function Folded({ text, draw }) {
  const [shown, show] = useState(false);
  return shown ? draw() : html`<button class="small" onClick=${() => show(true)}>${text}</button>`;
}

/** A list of plain values, shown in a line. @param {unknown} value @returns {value is unknown[]} */
const isFlat = (value) => Array.isArray(value) && value.every((one) => isPlain(one) && !isSecret("", one));

/** What is folded out below its name, with the whole width. @param {string} name @param {unknown} value */
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
      draw=${(/** @type {[string, any]} */ [name, value]) => html`<div key=${name} class=${isNested(name, value) ? "nested" : ""}><dt title=${truncate(name, LONG_NAME)} dir="auto">${worded(name)}</dt>
      <dd><${Value} name=${name} value=${value} depth=${depth} large=${large} /></dd></div>`} />
  </dl>`;
}

/** @param {{payload: Record<string, unknown>}} how */
export const Payload = ({ payload }) => useMemo(() => html`
  <section class="block" aria-labelledby="payload-title">
    <h3 id="payload-title">Details</h3>
    <${Fields} of=${payload} depth=${0} large=${size(payload, LARGE) > LARGE} />
  </section>`, [payload]);
