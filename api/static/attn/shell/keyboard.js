// The keyboard: one key, one thing. Off while somebody types, and when a person turned it off (WCAG 2.1.4).
import { dismiss, find, mark, resolve, restore, undo } from "../commands/item_commands.js";
import { isAway, letGo, look, onScreen, page, showFresh } from "../state/page_state.js";
import { chooseItem, closeItem, openItem } from "../ui/item/row.js";

/** @type {[string[], string][]} */
export const SHEET = [
  [["j", "k"], "next, previous item"], [["Enter"], "open it"], [["Esc"], "close, clear the choice"],
  [["x"], "choose; with shift-click, a range"], [["a"], "choose all that is listed"], [["e"], "resolve, for everyone"],
  [["d"], "put away for me; restore, where it is put away"], [["s"], "snooze"], [["u"], "read or unread"], [["z"], "undo"],
  [["."], "show what is new"], [["/"], "search"], [["1", "2", "3"], "open, unread, put away"], [["?"], "this sheet"],
];

const OFF = "attn-keys-off";
export const enabled = () => localStorage.getItem(OFF) === null;
/** @param {boolean} on */
export const enable = (on) => (on ? localStorage.removeItem(OFF) : localStorage.setItem(OFF, "1"));

/** What the keys are about: what is chosen, else where the keyboard is, else what is open. */
export function targets() {
  const { chosen, opened } = page.get();
  if (chosen.size) return [...chosen];
  if (opened !== null) return opened.state === "resolved" ? [] : [opened.id]; // listed or not
  const row = here();
  return row && !row.gone ? [row.item.id] : [];
}

/** Where the keyboard is, if that is on screen. @returns {import("../state/list_freeze.js").Shown | undefined} */
const here = () => onScreen(page.get()).shown.find((row) => row.item.id === page.get().active);

function openHere() {
  const row = here();
  if (row) openItem(row.item.id);
}

function chooseHere() {
  const row = here();
  if (row && !row.gone) chooseItem(row.item.id, false);
}

/** @param {number} step */
function move(step) {
  const { active, open } = page.get();
  const rows = onScreen(page.get()).shown.map((row) => row.item);
  if (!rows.length) return;
  const at = rows.findIndex((item) => item.id === active);
  const next = rows[Math.min(rows.length - 1, Math.max(0, at < 0 ? 0 : at + step))];
  page.set({ active: next.id, ...(open !== null ? { open: next.id, opened: next } : {}) });
  // After it is drawn: the row may not have been there.
  requestAnimationFrame(() => requestAnimationFrame(() => {
    const row = document.querySelector(`[data-id="${CSS.escape(next.id)}"] .main`);
    if (row instanceof HTMLElement) row.focus({ preventScroll: true });
  }));
}

function escape() {
  const { open, chosen, filters } = page.get();
  if (open !== null) return closeItem();
  if (chosen.size) return page.set({ chosen: new Set(), anchor: null });
  if (Object.values(filters).some(Boolean)) return look({ filters: { kind: "", cluster: "", case: "", text: "" } });
  if (document.activeElement instanceof HTMLElement) document.activeElement.blur();
  letGo();
}

function toggleRead() {
  const ids = targets();
  mark(ids, ids.some((id) => find(id)?.state === "unread") ? "read" : "unread");
}

/** @type {Record<string, () => void>} */
const KEYS = {
  j: () => move(1), k: () => move(-1), ArrowDown: () => move(1), ArrowUp: () => move(-1), Escape: escape, x: chooseHere, o: openHere,
  a: () => page.set({ chosen: new Set(onScreen(page.get()).shown.filter((row) => !row.gone).map((row) => row.item.id)) }),
  e: () => { if (page.get().view !== "away") resolve(targets()); },
  d: () => { const ids = targets(); if (ids.some((id) => isAway(page.get(), id))) restore(ids); else dismiss(ids); },
  s: () => { const ids = targets(); if (ids.length && !ids.some((id) => isAway(page.get(), id))) page.set({ dialog: "snooze", snoozing: ids }); },
  u: toggleRead, z: undo, ".": showFresh, "?": () => page.set({ dialog: "help" }),
  "/": () => { const box = document.getElementById("search"); if (box instanceof HTMLInputElement) { box.focus(); box.select(); } },
  1: () => look({ view: "open" }), 2: () => look({ view: "unread" }), 3: () => look({ view: "away" }),
};

/** @param {KeyboardEvent} event */
export function pressed(event) {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || page.get().phase !== "in") return;
  if (page.get().dialog !== null) return chooseInDialog(event);
  const at = event.target instanceof HTMLElement ? event.target : document.body;
  if (at.closest("[data-own-keys]")) return;
  const typing = at.matches("textarea, select, [contenteditable], input:not([type=checkbox])");
  if (typing) {
    if (event.key === "Escape") at.blur();
    return;
  }
  const does = KEYS[event.key];
  if (!does || (!enabled() && event.key.length === 1)) return;
  event.preventDefault();
  does();
}

/** Numbers choose in a dialog that numbers its choices. @param {KeyboardEvent} event */
function chooseInDialog(event) {
  if (event.target instanceof HTMLInputElement || !enabled()) return;
  const choice = document.querySelector(`dialog[open] [data-key="${CSS.escape(event.key)}"]`);
  if (choice instanceof HTMLElement) choice.click();
}
