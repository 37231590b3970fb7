// Renders long texts and lists in parts: foreign input never decides how many nodes are rendered at once.
import { plural } from "../text/labels.js";
import { html, useState } from "./dom.js";

/**
 * Renders the first `most` characters of a text; a button renders more.
 * @param {{text: string, most: number}} how
 */
export function LongText({ text, most }) {
  const [shown, show] = useState(most);
  if (text.length <= shown) return text;
  return html`${text.slice(0, shown)}… <button class="small" onClick=${() => show(shown + 10 * most)}>Show more of ${text.length.toLocaleString()} characters</button>`;
}

/**
 * Renders the first `most` entries of a list; a button, wrapped by `end`, renders more.
 * @template T
 * @param {{of: readonly T[], most: number, one: string, draw: (entry: T, place: number) => any, end?: (button: any) => any}} how
 */
export function Paged({ of, most, one, draw, end = (button) => button }) {
  const [shown, show] = useState(most);
  const left = of.length - shown;
  return html`${of.slice(0, shown).map(draw)}
    ${left > 0 && end(html`<button class="small" onClick=${() => show(shown + 2 * most)}>Show more: ${plural(left, `other ${one}`, `other ${one}s`)}</button>`)}`;
}
