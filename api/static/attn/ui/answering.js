// Loads the modules that show questions and take answers, after the list: only an opened item needs them.
import { html, useEffect, useState } from "./dom.js";

/** @typedef {typeof import("./answer/parts.js")} Parts */

/** @type {Parts | null} */
let loaded = null;
/** @type {Promise<Parts> | null} */
let loading = null;

/** Loads the modules once; a failed load is repeated at the next call. @returns {Promise<Parts>} */
export function loadAnswering() {
  loading ??= import("./answer/parts.js").then((parts) => (loaded = parts));
  loading.catch(() => { loading = null; });
  return loading;
}

/** Renders one of the parts as soon as it is loaded. @param {{part: keyof Parts} & Record<string, any>} how */
export function Answering({ part, ...how }) {
  const [parts, show] = useState(loaded);
  const [failed, fail] = useState(false);
  const load = () => { fail(false); loadAnswering().then(show, () => fail(true)); };
  useEffect(() => { if (!parts) load(); }, []);
  if (parts) return html`<${parts[part]} ...${how} />`;
  return failed ? html`<p class="notice bad" role="alert">This part of the page did not load. <button class="small" onClick=${load}>Try again</button></p>`
    : html`<p class="hint" role="status">Loading…</p>`;
}
