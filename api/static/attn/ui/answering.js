// Parts that are loaded after the list: questions and answers, keys, sessions, terminals, shortcuts.
import { html, useEffect, useState } from "./dom.js";

/**
 * Returns a function that loads a module once (a failed load is repeated), and a component that renders one of its exports.
 * @template {Record<string, any>} Parts
 * @param {() => Promise<Parts>} fetch
 */
function later(fetch) {
  /** @type {Parts | null} */
  let loaded = null;
  /** @type {Promise<Parts> | null} */
  let loading = null;
  const load = () => {
    loading ??= fetch().then((parts) => (loaded = parts));
    loading.catch(() => { loading = null; });
    return loading;
  };
  /** @param {{part: keyof Parts & string} & Record<string, any>} how */
  function Part({ part, ...how }) {
    const [parts, show] = useState(loaded);
    const [failed, fail] = useState(false);
    const start = () => { fail(false); load().then(show, () => fail(true)); };
    useEffect(() => { if (!parts) start(); }, []);
    if (parts) return html`<${parts[part]} ...${how} />`;
    return failed ? html`<p class="notice bad" role="alert">This part of the page did not load. <button class="small" onClick=${start}>Try again</button></p>`
      : html`<p class="hint" role="status">Loading…</p>`;
  }
  return { load, Part };
}

export const { load: loadAnswering, Part: Answering } = later(() => import("./answer/parts.js"));
export const { Part: Keys } = later(() => import("../keys/keys_card.js"));
export const { Part: Help } = later(() => import("../shell/help.js"));
export const { Part: Sessions } = later(() => import("../keys/sessions_card.js"));
export const { Part: Terminals } = later(() => import("../keys/terminal_card.js"));
