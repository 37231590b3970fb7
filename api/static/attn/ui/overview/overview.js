// Overview: widgets in the user's layout, which can be changed by drag and drop or by keys.
import { layout, moved, savePreferences } from "../../commands/preferences.js";
import { page } from "../../state/page_state.js";
import { html, useState } from "../dom.js";
import { Icon } from "../icons.js";
import { PARTS } from "./widgets.js";

/** @typedef {import("../../state/store.js").State} State */
/** @typedef {import("../../types").Widget} Widget */

/** @param {{state: State}} how */
export function Overview({ state }) {
  const [arranging, arrange] = useState(false);
  const widgets = layout(state.inbox.preferences);
  const manages = ["OWNER", "ADMIN", "MANAGER"].includes(state.me?.role ?? "");
  const mine = widgets.filter(({ id }) => id in PARTS && (manages || !PARTS[id].managing));
  // Nothing is shown before the role and the layout are known: cards must not appear and disappear at the start.
  const known = state.inbox.cursor !== null && state.me !== null;
  const shown = !known ? [] : arranging ? mine : mine.filter((widget) => widget.visible);
  return html`<section class=${`overview ${arranging ? "arranging" : ""}`} aria-labelledby="overview-title">
    <header><h2 id="overview-title">Overview</h2>
      <button class="plain" aria-pressed=${arranging} onClick=${() => arrange(!arranging)}><${Icon} name="tune" size="16" /> ${arranging ? "Done" : "Arrange"}</button></header>
    ${arranging && html`<p class="hint" id="arrange-help">Drag a card, or focus its handle and use the arrow keys.</p>`}
    <div class="cards">${shown.map((widget) => html`<${Card} key=${widget.id} widget=${widget} all=${widgets} mine=${mine} state=${state} arranging=${arranging} />`)}</div>
    ${known && !shown.length && html`<p class="empty">All cards are hidden. Choose “Arrange” to show them.</p>`}
  </section>`;
}

/** A widget with its title and its layout controls. @param {{widget: Widget, all: Widget[], mine: Widget[], state: State, arranging: boolean}} how */
function Card({ widget, all, mine, state, arranging }) {
  const { title, part: Part } = PARTS[widget.id], id = `widget-${widget.id}`;
  const [over, setOver] = useState(false);
  const keep = (/** @type {Widget[]} */ widgets) => savePreferences({ widgets });
  const shift = (/** @type {number} */ step) => {
    const target = mine[mine.findIndex((one) => one.id === widget.id) + step];
    if (!target) return;
    keep(moved(all, widget.id, target.id));
    page.set({ announcement: `${title} moved ${step < 0 ? "up" : "down"}` });
    requestAnimationFrame(() => requestAnimationFrame(() => document.querySelector(`#${id} .handle`)?.dispatchEvent(new Event("refocus"))));
  };
  const keys = (/** @type {KeyboardEvent} */ event) => {
    const step = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    shift(step);
  };
  const drop = (/** @type {DragEvent} */ event) => {
    event.preventDefault();
    setOver(false);
    keep(moved(all, event.dataTransfer?.getData("text/plain") ?? "", widget.id));
  };
  return html`<section class=${`card ${widget.visible ? "" : "off"} ${over ? "over" : ""}`} id=${id} aria-labelledby=${`${id}-title`}
      draggable=${arranging}
      onDragStart=${(/** @type {DragEvent} */ event) => event.dataTransfer?.setData("text/plain", widget.id)}
      onDragOver=${(/** @type {DragEvent} */ event) => { if (arranging) { event.preventDefault(); setOver(true); } }}
      onDragLeave=${() => setOver(false)} onDrop=${drop}>
    <header><h3 id=${`${id}-title`}>${title}</h3>
      ${arranging && html`<span class="tools">
        <button class="plain handle" data-own-keys aria-describedby="arrange-help" aria-label=${`Move ${title}`} onKeyDown=${keys}
          ref=${(/** @type {HTMLElement | null} */ handle) => handle?.addEventListener("refocus", () => handle.focus())}><${Icon} name="grip" size="16" /></button>
        <button class="plain" aria-label=${`Move ${title} up`} onClick=${() => shift(-1)}><${Icon} name="up" size="16" /></button>
        <button class="plain" aria-label=${`Move ${title} down`} onClick=${() => shift(1)}><${Icon} name="down" size="16" /></button>
        <button class="plain" aria-pressed=${widget.visible} onClick=${() => keep(all.map((one) => (one.id === widget.id ? { ...one, visible: !one.visible } : one)))}>
          ${widget.visible ? "Hide" : "Show"}<span class="hidden"> ${title}</span></button></span>`}
    </header>
    ${!arranging && html`<${Part} state=${state} />`}
  </section>`;
}
