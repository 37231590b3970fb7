// A payload as a card: names and values, nested ones folded out, secret-looking values masked until asked for.
import { isSecret } from "../secrets.js";
import { html, useState } from "./dom.js";
import { Icon } from "./icons.js";

const MOST = 200, DEEPEST = 6, LONGEST = 4000; // entries of one object, levels, characters: a card, not a dump

/** @param {string} name */
const worded = (name) => name.replace(/([a-z\d])([A-Z])/g, "$1 $2").replace(/[_-]+/g, " ").trim();

/** @param {{name: string, value: unknown}} how */
function Secret({ name, value }) {
  const [shown, show] = useState(false);
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return html`<span class="secret">
    ${shown ? html`<code>${text}</code>` : html`<span class="mask" aria-label="hidden">••••••••</span>`}
    <button class="small" aria-pressed=${shown} onClick=${() => show(!shown)} aria-label=${`${shown ? "Hide" : "Show"} ${worded(name)}`}>
      <${Icon} name="eye" size="14" /> ${shown ? "Hide" : "Show"}</button></span>`;
}

/** A list of plain values, shown in a line. @param {unknown} value @returns {value is unknown[]} */
const isFlat = (value) => Array.isArray(value) && value.every((one) => (one === null || typeof one !== "object") && !isSecret("", one));

/** What is folded out below its name, with the whole width. @param {string} name @param {unknown} value */
const isNested = (name, value) => typeof value === "object" && value !== null && !isFlat(value) && !isSecret(name, value);

/** @param {{name: string, value: unknown, depth: number}} how @returns {any} */
function Value({ name, value, depth }) {
  if (isSecret(name, value)) return html`<${Secret} name=${name} value=${value} />`;
  if (value === null) return html`<span class="nothing">none</span>`;
  if (typeof value === "boolean") return html`<span class=${`flag ${value}`}>${value ? "yes" : "no"}</span>`;
  if (typeof value === "number") return html`<code>${value.toLocaleString(undefined, { maximumFractionDigits: 20 })}</code>`;
  if (isFlat(value)) {
    return value.length ? html`<span class="tags">${value.slice(0, MOST).map((one) => html`<code>${String(one)}</code>`)}</span>` : html`<span class="nothing">empty</span>`;
  }
  if (typeof value === "object") {
    if (depth >= DEEPEST) return html`<code>…</code>`;
    return html`<${Fields} of=${value} depth=${depth + 1} />`;
  }
  const text = String(value);
  if (/^https?:\/\/\S+$/.test(text)) return html`<a href=${text} target="_blank" rel="noopener noreferrer">${text}</a>`;
  if (text.includes("\n") || text.length > 120) return html`<pre tabIndex="0">${text.slice(0, LONGEST)}${text.length > LONGEST ? "…" : ""}</pre>`;
  return html`<span>${text}</span>`;
}

/** @param {{of: any, depth: number}} how */
function Fields({ of, depth }) {
  const all = Object.entries(of);
  return html`<dl class=${`fields depth-${depth}`}>
    ${all.slice(0, MOST).map(([name, value]) => html`<div key=${name} class=${isNested(name, value) ? "nested" : ""}><dt title=${name}>${worded(name)}</dt>
      <dd><${Value} name=${name} value=${value} depth=${depth} /></dd></div>`)}
    ${all.length > MOST && html`<div><dt></dt><dd>and ${all.length - MOST} more</dd></div>`}
  </dl>`;
}

/** @param {{payload: Record<string, unknown>}} how */
export const Payload = ({ payload }) => html`
  <section class="block" aria-labelledby="payload-title">
    <h3 id="payload-title">Details</h3>
    <${Fields} of=${payload} depth=${0} />
  </section>`;
