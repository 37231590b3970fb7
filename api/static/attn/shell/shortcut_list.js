// The shortcut list. Loaded when it is opened.

/** Keys and descriptions of the shortcut list. @type {[string[], string][]} */
export const SHORTCUTS = [
  [["j", "k"], "next, previous item"], [["Enter"], "open the item"], [["Esc"], "close the item, clear the selection"],
  [["a", "r", "e"], "approve, reject, edit: the open question; each answer shows its key"], [["c"], "comment on the open question"], [["n"], "next question"],
  [["x"], "select the item (shift-click: a range)"], [["A"], "select all listed items"], [["e"], "resolve an item that asks nothing, for everyone"],
  [["d"], "dismiss, for me only; restore if dismissed"], [["s"], "snooze"], [["u"], "mark read or unread"], [["z"], "undo, take an answer back"],
  [["."], "show new items"], [["/"], "search"], [["1", "2", "3", "4"], "open, unread, dismissed items, my decisions"], [["?"], "this list"],
];
