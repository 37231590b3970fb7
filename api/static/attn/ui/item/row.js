// Row of the list, and the functions that open, select and focus items.
import { select } from "../../state/list_layout.js";
import { dismiss, findItem, resolve, restore } from "../../commands/item_commands.js";
import { listOnScreen, page } from "../../state/page_state.js";
import { formatAge, truncate, due, isolate, kindLabel, MANAGED, plural, formatDuration, explainRank } from "../../text/labels.js";
import { html } from "../dom.js";
import { Icon } from "../icons.js";

/** @typedef {import("../../types").Item} Item */
/** @typedef {import("../../state/store.js").State} State */

/** @param {string} id */
export function openItem(id) {
  const item = listOnScreen(page.get()).shown.find((row) => row.item.id === id)?.item ?? findItem(id) ?? null;
  page.set({ openId: id, openItem: item, activeId: id });
}

export const closeItem = () => page.set({ openId: null, openItem: null });

/** Restores the focus to the active row if no element has it: on a narrow screen the item replaced the list. */
export function backToList() {
  // After the next render.
  requestAnimationFrame(() => requestAnimationFrame(() => {
    if (document.activeElement !== document.body) return;
    const { activeId } = page.get();
    const row = activeId !== null && document.querySelector(`[data-id="${CSS.escape(activeId)}"] .main`);
    const at = row || document.getElementById("list");
    if (!(at instanceof HTMLElement)) return;
    at.focus({ preventScroll: true });
    if (row) row.scrollIntoView({ block: "nearest" });
  }));
}

/** Selects an item, or a range up to it. @param {string} id @param {boolean} range */
export function selectItem(id, range) {
  const state = page.get();
  const order = listOnScreen(state).shown.filter((row) => !row.gone).map((row) => row.item.id);
  page.set({ selected: select(state.selected, order, state.selectionAnchor, id, range), selectionAnchor: id, activeId: id });
}

/** @param {readonly string[]} ids */
export const askSnooze = (ids) => ids.length && page.set({ dialog: "snooze", snoozing: ids });

/** @type {Record<string, string>} Why a decided item is back in the list. */
const RETURNED = { refused: "refused", undeliverable: "not delivered", unconfirmed: "not confirmed" };

/** Returns the badges of an item: CSS class and text. @param {Item} item */
export function badges(item) {
  /** @type {[string, string][]} */
  const found = [];
  for (const reason of item.rank_reasons) if (RETURNED[reason]) found.push(["returned", RETURNED[reason]]);
  if (item.overdue) found.push(["overdue", "overdue"]);
  if (item.risk) found.push([`risk-${item.risk}`, `${item.risk} risk`]); // before the others, because a narrow screen has no room for the last badge
  if (item.reversible === false) found.push(["final", "can’t be undone"]);
  if (item.votes?.length && item.ask?.quorum?.approve) found.push(["votes", `${item.ask.quorum.approve - (item.needed ?? 0)} of ${item.ask.quorum.approve} votes`]);
  if (item.blocking) found.push(["blocking", "blocking"]);
  if (item.reversible === true) found.push(["quiet", "reversible"]);
  if (item.editor?.type === "ai") found.push(["ai", "AI edits"]);
  if (item.clusters) found.push(["incident", `${plural(item.clusters.length, "cluster")}, ${plural(item.count ?? 0, "run")}`]);
  if (item.plan) found.push(["quiet", `${item.plan.auto} auto, ${item.plan.confirm} confirm`]);
  return found;
}

const PLACES = 12, LONG = 200, LONGEST = 600; // clusters named, characters of a name and of a title

/** Returns cluster and stack, or the clusters of an incident; isolates the direction of each name. @param {{cluster?: string, stack?: string, clusters?: readonly string[]}} item */
export function placeOf({ cluster, stack, clusters }) {
  const named = (/** @type {readonly (string | undefined)[]} */ names) => names.filter((name) => name).map((name) => isolate(truncate(/** @type {string} */ (name), LONG)));
  if (!clusters) return named([cluster, stack]).join(" / ");
  return named(clusters.slice(0, PLACES)).join(", ") + (clusters.length > PLACES ? ` and ${clusters.length - PLACES} more` : "");
}

/**
 * @param {{row: import("../../state/list_layout.js").Row, state: State, now: number, size: number}} how
 */
export function Row({ row, state, now, size }) {
  const { item, gone } = /** @type {import("../../state/list_freeze.js").ListedItem} */ (row.shown);
  const selected = state.selected.has(item.id), dismissed = state.view === "dismissed";
  const ends = due(item, now), sender = isolate(truncate(item.sender_name ?? item.sender_id ?? "", LONG)), title = truncate(item.title, LONGEST), spoken = isolate(title);
  const last = gone ? truncate(state.removed.get(item.id) ?? "gone", LONG) : !dismissed ? ends.text
    : item.dismissed_until ? `back in ${formatDuration((Date.parse(item.dismissed_until) - now) / 1000)}` : "dismissed";
  const is = [
    "row", item.band, item.state === "unread" && !gone && "unread", state.openId === item.id && "opened", selected && "chosen",
    gone && "gone", state.highlighted.has(item.id) && "fresh", state.pending.has(item.id) && "busy", state.activeId === item.id && "active",
  ].filter(Boolean).join(" ");
  const first = state.activeId === null ? row.place === 0 : state.activeId === item.id;
  const act = (/** @type {() => void} */ does) => (/** @type {Event} */ event) => {
    event.stopPropagation();
    does();
  };
  return html`
    <li class=${is} style=${{ transform: `translateY(${row.top}px)` }} data-id=${item.id}
        aria-setsize=${size} aria-posinset=${row.place + 1}>
      <label class="pick"><input type="checkbox" checked=${selected} disabled=${gone} tabIndex=${first ? 0 : -1}
        aria-label=${`Select ${spoken}`}
        onClick=${(/** @type {MouseEvent} */ event) => selectItem(item.id, event.shiftKey)} /></label>
      <button class="main" tabIndex=${first ? 0 : -1} aria-current=${state.openId === item.id ? "true" : undefined}
          onFocus=${() => page.get().activeId === item.id || page.set({ activeId: item.id })}
          onClick=${(/** @type {MouseEvent} */ event) => (event.shiftKey ? selectItem(item.id, true) : openItem(item.id))}>
        <span class="kind"><${Icon} name=${kindLabel(item.kind).icon} /></span>
        <span class="text">
          ${item.state === "unread" && !gone && html`<span class="unseen">Unread: </span>`}
          <span class="title" dir="auto">${title}</span>
          <span class="about">
            <span class="what">${kindLabel(item.kind).name}</span>
            ${placeOf(item) && html`<span class="at" dir="auto">${placeOf(item)}</span>`}
            ${sender && html`<span class="who" dir="auto">${sender}</span>`}
            <span class="waits" title=${`Waiting since ${item.created_at}`}>waits ${formatAge(item.created_at, now)}</span>
          </span>
          <span class="marks">
            ${badges(item).map(([tone, text]) => html`<span key=${text} class=${`badge ${tone}`}>${text}</span>`)}
            ${item.rank_reasons.includes("pinned") && html`<span class="badge pinned" title="In a cluster you pinned"><${Icon} name="star" size="12" /><span class="hidden">pinned</span></span>`}
          </span>
        </span>
        <span class=${`due ${ends.tone}`} title=${explainRank(item)}><bdi>${last}</bdi></span>
      </button>
      ${!gone && html`<span class="quick">
        ${dismissed ? html`<button tabIndex="-1" title="Restore" aria-label=${`Restore ${spoken}`} onClick=${act(() => restore([item.id]))}><${Icon} name="back" /></button>` : html`
          ${!MANAGED.has(item.kind) && !item.ask && html`<button tabIndex="-1" title="Resolve for everyone (e)" aria-label=${`Resolve ${spoken}`} onClick=${act(() => resolve([item.id]))}><${Icon} name="check" /></button>`}
          <button tabIndex="-1" title="Snooze (s)" aria-label=${`Snooze ${spoken}`} onClick=${act(() => askSnooze([item.id]))}><${Icon} name="clock" /></button>
          <button tabIndex="-1" title="Dismiss for me (d)" aria-label=${`Dismiss ${spoken}`} onClick=${act(() => dismiss([item.id]))}><${Icon} name="dismissed" /></button>`}
      </span>`}
    </li>`;
}
