// Shortcut list, and the switch of single-key shortcuts (WCAG 2.1.4).

/** Keys and descriptions of the shortcut list. @type {[string[], string][]} */
export const SHORTCUTS = [
  [["j", "k"], "next, previous item"], [["Enter"], "open the item"], [["Esc"], "close the item, clear the selection"],
  [["a", "r", "e"], "approve, reject, edit: the open question; each answer shows its key"], [["c"], "comment on the open question"], [["n"], "next question"],
  [["x"], "select the item (shift-click: a range)"], [["A"], "select all listed items"], [["e"], "resolve an item that asks nothing, for everyone"],
  [["d"], "dismiss, for me only; restore if dismissed"], [["s"], "snooze"], [["u"], "mark read or unread"], [["z"], "undo, take an answer back"],
  [["."], "show new items"], [["/"], "search"], [["1", "2", "3", "4"], "open, unread, dismissed items, my decisions"], [["?"], "this list"],
];

const STORAGE_KEY = "attn-keys-off";
export const shortcutsEnabled = () => localStorage.getItem(STORAGE_KEY) === null;
/** @param {boolean} on */
export const setShortcutsEnabled = (on) => (on ? localStorage.removeItem(STORAGE_KEY) : localStorage.setItem(STORAGE_KEY, "1"));
