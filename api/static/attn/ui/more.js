// The beginning of what is long, and the rest by and by: no text or list of others is drawn whole at once.
import { plural } from "../words.js";
import { html, useState } from "./dom.js";

/**
 * A text of any length.
 * @param {{text: string, most: number}} how
 */
export function Long({ text, most }) {
  const [shown, show] = useState(most);
  if (text.length <= shown) return text;
  return html`${text.slice(0, shown)}… <button class="small" onClick=${() => show(shown + 10 * most)}>Show more of ${text.length.toLocaleString()} characters</button>`;
}

/**
 * A list of any length: `draw` makes its first entries, `end` places the button that draws more.
 * @template T
 * @param {{of: readonly T[], most: number, one: string, draw: (entry: T, place: number) => any, end?: (button: any) => any}} how
 */
export function Some({ of, most, one, draw, end = (button) => button }) {
  const [shown, show] = useState(most);
  const left = of.length - shown;
  return html`${of.slice(0, shown).map(draw)}
    ${left > 0 && end(html`<button class="small" onClick=${() => show(shown + 2 * most)}>Show more: ${plural(left, `other ${one}`, `other ${one}s`)}</button>`)}`;
}
