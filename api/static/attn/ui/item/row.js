// One row of the list.
import { choose } from "../../state/list_layout.js";
import { dismiss, find, resolve, restore } from "../../commands/item_commands.js";
import { onScreen, page } from "../../state/page_state.js";
import { ago, cut, due, isolated, kind, MANAGED, plural, span, why } from "../../text/labels.js";
import { html } from "../dom.js";
import { Icon } from "../icons.js";

/** @typedef {import("../../types").Item} Item */
/** @typedef {import("../../state/store.js").State} State */

/** @param {string} id */
export function openItem(id) {
  const item = onScreen(page.get()).shown.find((row) => row.item.id === id)?.item ?? find(id) ?? null;
  page.set({ open: id, opened: item, active: id });
}

export const closeItem = () => page.set({ open: null, opened: null });

/** Where the keyboard is gets the focus back if nothing has it: on a narrow screen the list was hidden meanwhile. */
export function backToList() {
  // After it is drawn.
  requestAnimationFrame(() => requestAnimationFrame(() => {
    if (document.activeElement !== document.body) return;
    const { active } = page.get();
    const row = active !== null && document.querySelector(`[data-id="${CSS.escape(active)}"] .main`);
    const at = row || document.getElementById("list");
    if (!(at instanceof HTMLElement)) return;
    at.focus({ preventScroll: true });
    if (row) row.scrollIntoView({ block: "nearest" });
  }));
}

/** @param {string} id @param {boolean} range */
export function chooseItem(id, range) {
  const state = page.get();
  const order = onScreen(state).shown.filter((row) => !row.gone).map((row) => row.item.id);
  page.set({ chosen: choose(state.chosen, order, state.anchor, id, range), anchor: id, active: id });
}

/** @param {readonly string[]} ids */
export const askSnooze = (ids) => ids.length && page.set({ dialog: "snooze", snoozing: ids });

/** @param {Item} item */
export function badges(item) {
  /** @type {[string, string][]} */
  const found = [];
  if (item.overdue) found.push(["overdue", "overdue"]);
  if (item.risk) found.push([`risk-${item.risk}`, `${item.risk} risk`]); // before the others: the last has no room on a phone
  if (item.reversible === false) found.push(["final", "can’t be undone"]);
  if (item.blocking) found.push(["blocking", "blocking"]);
  if (item.reversible === true) found.push(["quiet", "reversible"]);
  if (item.editor?.type === "ai") found.push(["ai", "AI edits"]);
  if (item.clusters) found.push(["incident", `${plural(item.clusters.length, "cluster")}, ${plural(item.count ?? 0, "run")}`]);
  if (item.plan) found.push(["quiet", `${item.plan.auto} auto, ${item.plan.confirm} confirm`]);
  return found;
}

const PLACES = 12, LONG = 200, LONGEST = 600; // clusters named, characters of a name and of a title

/** Each name with a direction of its own. @param {{cluster?: string, stack?: string, clusters?: readonly string[]}} item */
export function where({ cluster, stack, clusters }) {
  const named = (/** @type {readonly (string | undefined)[]} */ names) => names.filter((name) => name).map((name) => isolated(cut(/** @type {string} */ (name), LONG)));
  if (!clusters) return named([cluster, stack]).join(" / ");
  return named(clusters.slice(0, PLACES)).join(", ") + (clusters.length > PLACES ? ` and ${clusters.length - PLACES} more` : "");
}

/**
 * @param {{row: import("../../state/list_layout.js").Row, state: State, now: number, size: number}} how
 */
export function Row({ row, state, now, size }) {
  const { item, gone } = /** @type {import("../../state/list_freeze.js").Shown} */ (row.shown);
  const chosen = state.chosen.has(item.id), away = state.view === "away";
  const ends = due(item, now), sender = isolated(cut(item.sender_name ?? item.sender_id ?? "", LONG)), title = cut(item.title, LONGEST), spoken = isolated(title);
  const last = gone ? cut(state.gone.get(item.id) ?? "gone", LONG) : !away ? ends.text
    : item.dismissed_until ? `back in ${span((Date.parse(item.dismissed_until) - now) / 1000)}` : "put away";
  const is = [
    "row", item.band, item.state === "unread" && !gone && "unread", state.open === item.id && "opened", chosen && "chosen",
    gone && "gone", state.fresh.has(item.id) && "fresh", state.busy.has(item.id) && "busy", state.active === item.id && "active",
  ].filter(Boolean).join(" ");
  const first = state.active === null ? row.place === 0 : state.active === item.id;
  const act = (/** @type {() => void} */ does) => (/** @type {Event} */ event) => {
    event.stopPropagation();
    does();
  };
  return html`
    <li class=${is} style=${{ transform: `translateY(${row.top}px)` }} data-id=${item.id}
        aria-setsize=${size} aria-posinset=${row.place + 1}>
      <label class="pick"><input type="checkbox" checked=${chosen} disabled=${gone} tabIndex=${first ? 0 : -1}
        aria-label=${`Choose ${spoken}`}
        onClick=${(/** @type {MouseEvent} */ event) => chooseItem(item.id, event.shiftKey)} /></label>
      <button class="main" tabIndex=${first ? 0 : -1} aria-current=${state.open === item.id ? "true" : undefined}
          onFocus=${() => page.get().active === item.id || page.set({ active: item.id })}
          onClick=${(/** @type {MouseEvent} */ event) => (event.shiftKey ? chooseItem(item.id, true) : openItem(item.id))}>
        <span class="kind"><${Icon} name=${kind(item.kind).icon} /></span>
        <span class="text">
          ${item.state === "unread" && !gone && html`<span class="unseen">Unread: </span>`}
          <span class="title" dir="auto">${title}</span>
          <span class="about">
            <span class="what">${kind(item.kind).name}</span>
            ${where(item) && html`<span class="at" dir="auto">${where(item)}</span>`}
            ${sender && html`<span class="who" dir="auto">${sender}</span>`}
            <span class="waits" title=${`Waiting since ${item.created_at}`}>waits ${ago(item.created_at, now)}</span>
          </span>
          <span class="marks">
            ${badges(item).map(([tone, text]) => html`<span key=${text} class=${`badge ${tone}`}>${text}</span>`)}
            ${item.rank_reasons.includes("pinned") && html`<span class="badge pinned" title="In a cluster you pinned"><${Icon} name="star" size="12" /><span class="hidden">pinned</span></span>`}
          </span>
        </span>
        <span class=${`due ${ends.tone}`} title=${why(item)}><bdi>${last}</bdi></span>
      </button>
      ${!gone && html`<span class="quick">
        ${away ? html`<button tabIndex="-1" title="Restore" aria-label=${`Restore ${spoken}`} onClick=${act(() => restore([item.id]))}><${Icon} name="back" /></button>` : html`
          ${!MANAGED.has(item.kind) && html`<button tabIndex="-1" title="Resolve for everyone (e)" aria-label=${`Resolve ${spoken}`} onClick=${act(() => resolve([item.id]))}><${Icon} name="check" /></button>`}
          <button tabIndex="-1" title="Snooze (s)" aria-label=${`Snooze ${spoken}`} onClick=${act(() => askSnooze([item.id]))}><${Icon} name="clock" /></button>
          <button tabIndex="-1" title="Put away for me (d)" aria-label=${`Put away ${spoken}`} onClick=${act(() => dismiss([item.id]))}><${Icon} name="away" /></button>`}
      </span>`}
    </li>`;
}
