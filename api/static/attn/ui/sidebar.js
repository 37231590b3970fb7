// Sidebar: views, filters by kind and cluster, and the chips of active filters.
import { isActive, clusters } from "../state/filters.js";
import { knownItems, navigate, page } from "../state/page_state.js";
import { savePreferences } from "../commands/preferences.js";
import { truncate, isolate, kindLabel, KINDS, plural } from "../text/labels.js";
import { html } from "./dom.js";
import { Icon } from "./icons.js";

/** @typedef {import("../state/store.js").State} State */
/** @typedef {import("../state/store.js").View} View */

/** @type {[View, string, string][]} */
const VIEWS = [["open", "Open", "inbox"], ["unread", "Unread", "unread"], ["dismissed", "Dismissed", "dismissed"], ["decisions", "My decisions", "check"]];

/** @param {{state: State}} how */
export const Views = ({ state }) => {
  const { counts } = state.inbox;
  /** @type {Record<View, number | null>} */
  const numbers = { open: counts.total, unread: counts.unread, dismissed: state.dismissed.loaded ? state.dismissed.items.length : null, decisions: null };
  return html`<ul class="views" role="list">
    ${VIEWS.map(([view, name, icon]) => html`<li key=${view} class=${view}><button class="nav" aria-current=${state.view === view && !state.overview ? "page" : undefined} onClick=${() => navigate({ view })}>
      <${Icon} name=${icon} /> <span>${name}</span>
      ${numbers[view] !== null && html`<span class="count">${numbers[view].toLocaleString()}${view === "dismissed" && state.dismissed.next ? "+" : ""}</span>`}</button></li>`)}
  </ul>`;
};

const MOST = 60, LONG = 200; // clusters listed (the search finds the others), and characters of a name
const ORDER = Object.keys(KINDS);

/** Returns the position of a kind in the fixed order. @param {string} name */
const place = (name) => (ORDER.includes(name) ? ORDER.indexOf(name) : ORDER.length);

/** @param {{state: State}} how */
export function Filters({ state }) {
  const { filters, inbox } = state, pinned = inbox.preferences.pinned_clusters;
  const set = (/** @type {Partial<import("../state/filters.js").Filters>} */ some) => navigate({ filters: { ...filters, ...some } });
  // Fixed order: a button must not move when counts change.
  const kinds = Object.entries(inbox.counts.by_kind).sort(([a], [b]) => place(a) - place(b) || (a < b ? -1 : 1));
  const all = clusters(knownItems(state), pinned);
  const pin = (/** @type {string} */ name) => savePreferences({
    pinned_clusters: pinned.includes(name) ? pinned.filter((one) => one !== name) : [...pinned, name],
  });
  return html`
    ${kinds.length > 0 && html`<section aria-labelledby="kinds-title"><h2 id="kinds-title">Kinds</h2>
      <ul role="list">${kinds.slice(0, MOST).map(([name, count]) => html`<li key=${name}><button class="nav" aria-pressed=${filters.kind === name} onClick=${() => set({ kind: filters.kind === name ? "" : name })}>
        <${Icon} name=${kindLabel(name).icon} /> <span dir="auto">${truncate(kindLabel(name).name, LONG)}</span><span class="count">${count.toLocaleString()}</span></button></li>`)}
      </ul></section>`}
    ${all.length > 0 && html`<section aria-labelledby="clusters-title"><h2 id="clusters-title">Clusters</h2>
      <ul role="list">${all.slice(0, MOST).map(({ name, count, pinned: on }) => html`<li key=${name} class="cluster">
        <button class="nav" aria-pressed=${filters.cluster === name} onClick=${() => set({ cluster: filters.cluster === name ? "" : name })}>
          <span dir="auto">${isolate(truncate(name, LONG))}</span><span class="count">${count}</span></button>
        <button class="pin plain" aria-pressed=${on} aria-label=${`Pin ${isolate(truncate(name, LONG))} to the top`} title=${on ? "Unpin" : "Pin to the top of its band"} onClick=${() => pin(name)}><${Icon} name="star" size="15" /></button></li>`)}
      </ul>${all.length > MOST && html`<p class="hint">and ${plural(all.length - MOST, "other")}</p>`}</section>`}`;
}

/** The active filters, each with a button that removes it. @param {{state: State}} how */
export function Chips({ state }) {
  const { filters } = state;
  if (!isActive(filters)) return null;
  const chips = /** @type {[keyof typeof filters, string][]} */ ([
    ["kind", kindLabel(filters.kind).name], ["cluster", isolate(filters.cluster)], ["case", `Case ${isolate(filters.case)}`], ["text", `“${isolate(filters.text)}”`],
  ]);
  return html`<p class="chips">${chips.filter(([name]) => filters[name].trim()).map(([name, text]) => html`
    <button key=${name} class="chip" aria-label=${`Remove the filter ${text}`} onClick=${() => navigate({ filters: { ...page.get().filters, [name]: "" } })}><bdi>${truncate(text, LONG)}</bdi> <${Icon} name="close" size="13" /></button>`)}
  </p>`;
}
