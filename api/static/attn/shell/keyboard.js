// Keyboard shortcuts. They are off in text fields, and the user can switch off single-key shortcuts (WCAG 2.1.4).
import { dismiss, findItem, setState, resolve, restore, showToast, undo } from "../commands/item_commands.js";
import { isDismissed, unfreezeList, navigate, listOnScreen, page, showPending } from "../state/page_state.js";
import { selectItem, closeItem, openItem } from "../ui/item/row.js";
import { answerByKey, openQuestion } from "./answer_key.js";
import { shortcutsEnabled } from "./shortcuts.js";

/** Returns the ids that a shortcut applies to: the selected items, else the open item, else the active row. */
export function targets() {
  const { selected, openItem } = page.get();
  if (selected.size) return [...selected];
  if (openItem !== null) return openItem.state === "resolved" || openItem.state === "decided" ? [] : [openItem.id]; // even if it is not in the list
  const row = activeRow();
  return row && !row.gone ? [row.item.id] : [];
}

/** Returns the row with the keyboard focus, if it is on screen. @returns {import("../state/list_freeze.js").ListedItem | undefined} */
const activeRow = () => listOnScreen(page.get()).shown.find((row) => row.item.id === page.get().activeId);

function openActive() {
  const row = activeRow();
  if (row) openItem(row.item.id);
}

function selectActive() {
  const row = activeRow();
  if (row && !row.gone) selectItem(row.item.id, false);
}

/** @param {number} step */
function move(step) {
  const { activeId, openId } = page.get();
  const rows = listOnScreen(page.get()).shown.map((row) => row.item);
  if (!rows.length) return;
  const at = rows.findIndex((item) => item.id === activeId);
  const next = rows[Math.min(rows.length - 1, Math.max(0, at < 0 ? 0 : at + step))];
  page.set({ activeId: next.id, ...(openId !== null ? { openId: next.id, openItem: next } : {}) });
  // After the next render: the row may not exist yet.
  requestAnimationFrame(() => requestAnimationFrame(() => {
    const row = document.querySelector(`[data-id="${CSS.escape(next.id)}"] .main`);
    if (row instanceof HTMLElement) row.focus({ preventScroll: true });
  }));
}

function escape() {
  const { openId, selected, filters } = page.get();
  if (openId !== null) return closeItem();
  if (selected.size) return page.set({ selected: new Set(), selectionAnchor: null });
  if (Object.values(filters).some(Boolean)) return navigate({ filters: { kind: "", cluster: "", case: "", text: "" } });
  if (document.activeElement instanceof HTMLElement) document.activeElement.blur();
  unfreezeList();
}

function toggleRead() {
  const ids = targets();
  setState(ids, ids.some((id) => findItem(id)?.state === "unread") ? "read" : "unread");
}

/** Resolves the targets; a question is answered instead. */
function resolveTargets() {
  const ids = targets();
  if (ids.length === 1 && findItem(ids[0])?.ask) return showToast("This item asks a question. Open it to answer.");
  return resolve(ids);
}

/** @type {Record<string, () => void>} */
const KEYS = {
  j: () => move(1), k: () => move(-1), ArrowDown: () => move(1), ArrowUp: () => move(-1), Escape: escape, x: selectActive, o: openActive,
  A: () => page.set({ selected: new Set(listOnScreen(page.get()).shown.filter((row) => !row.gone).map((row) => row.item.id)) }),
  e: () => { if (page.get().view !== "dismissed" && !(openQuestion() && !page.get().selected.size)) resolveTargets(); },
  d: () => { const ids = targets(); if (ids.some((id) => isDismissed(page.get(), id))) restore(ids); else dismiss(ids); },
  s: () => { const ids = targets(); if (ids.length && !ids.some((id) => isDismissed(page.get(), id))) page.set({ dialog: "snooze", snoozing: ids }); },
  u: toggleRead, z: undo, ".": showPending, "?": () => page.set({ dialog: "help" }),
  "/": () => { const box = document.getElementById("search"); if (box instanceof HTMLInputElement) { box.focus(); box.select(); } },
  1: () => navigate({ view: "open" }), 2: () => navigate({ view: "unread" }), 3: () => navigate({ view: "dismissed" }), 4: () => navigate({ view: "decisions" }),
};

/** @param {KeyboardEvent} event */
export function onKeyDown(event) {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || page.get().phase !== "in") return;
  if (page.get().dialog !== null) return chooseInDialog(event);
  const at = event.target instanceof HTMLElement ? event.target : document.body;
  if (at.closest("[data-own-keys]")) return;
  const typing = at.matches("textarea, select, [contenteditable], input:not([type=checkbox])");
  if (typing) {
    if (event.key === "Escape") at.blur();
    return;
  }
  if (!shortcutsEnabled() && event.key.length === 1) return;
  if (answerByKey(event)) return event.preventDefault();
  const command = KEYS[event.key];
  if (!command) return;
  event.preventDefault();
  command();
}

/** Selects a numbered choice of a dialog by its number key. @param {KeyboardEvent} event */
function chooseInDialog(event) {
  if (event.target instanceof HTMLInputElement || !shortcutsEnabled()) return;
  const choice = document.querySelector(`dialog[open] [data-key="${CSS.escape(event.key)}"]`);
  if (choice instanceof HTMLElement) choice.click();
}
