// The text of an item: markdown, once what reads it is there; until then the text as it is.
import { html, useEffect, useLayoutEffect, useRef, useState } from "./dom.js";

/** @typedef {typeof import("./markdown.js").safe} Safe */

/** @type {Promise<Safe> | null} */
let loading = null;
/** @type {Safe | null} */
let loaded = null;

/** Load it, once; another try after one that failed. @returns {Promise<Safe>} */
export function loadMarkdown() {
  loading ??= import("./markdown.js").then(({ safe }) => (loaded = safe));
  loading.catch(() => { loading = null; });
  return loading;
}

/** @param {{text: string}} how */
export function Body({ text }) {
  const place = useRef(/** @type {HTMLElement | null} */ (null));
  const [safe, show] = useState(() => loaded);
  useEffect(() => {
    let there = true;
    if (!safe) loadMarkdown().then((found) => there && show(() => found), () => {});
    return () => { there = false; };
  }, []);
  useLayoutEffect(() => {
    if (!safe) return;
    const made = safe(text);
    for (const table of made.querySelectorAll("table, pre")) table.setAttribute("tabindex", "0"); // they scroll sideways
    place.current?.replaceChildren(made);
  }, [text, safe]);
  return safe ? html`<div key="markdown" class="markdown" dir="auto" ref=${place}></div>`
    : html`<div key="plain" class="markdown plain-text" dir="auto">${text}</div>`;
}
