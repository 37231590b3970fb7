// Renders the body of an item as markdown: as plain text until the worker has answered, and if the text exceeds a limit.
import { html, useEffect, useLayoutEffect, useRef, useState } from "../dom.js";
import { LongText } from "../show_more.js";

const SHOWN = 20_000; // characters of plain text at first

/** @typedef {typeof import("../../text/markdown.js")} Markdown */

/** @type {Promise<Markdown> | null} */
let loading = null;

/** Loads the markdown module once; a failed load is repeated at the next call. @returns {Promise<Markdown>} */
export function loadMarkdown() {
  loading ??= import("../../text/markdown.js").then((markdown) => (markdown.prepare(), markdown));
  loading.catch(() => { loading = null; });
  return loading;
}

/** @param {{text: string}} how */
export function Body({ text }) {
  const ref = useRef(/** @type {HTMLElement | null} */ (null));
  const [made, show] = useState(/** @type {{text: string, nodes: DocumentFragment | null} | null} */ (null));
  useEffect(() => {
    const closed = new AbortController();
    loadMarkdown().then((markdown) => markdown.render(text, closed.signal))
      .then((nodes) => closed.signal.aborted || show({ text, nodes }), () => {});
    return () => closed.abort();
  }, [text]);
  const nodes = made?.text === text ? made.nodes : null;
  useLayoutEffect(() => { if (nodes) ref.current?.replaceChildren(nodes); }, [nodes]);
  return nodes ? html`<div key="markdown" class="markdown" ref=${ref}></div>`
    : html`<div key="plain" class="markdown plain-text" dir="auto"><${LongText} key=${text} text=${text} most=${SHOWN} /></div>`;
}
