// Light, dark, or as the system is.

const KEPT = "attn-theme";
/** @typedef {"auto" | "light" | "dark"} Theme */
/** @type {readonly Theme[]} */
const ALL = ["auto", "light", "dark"];

/** @returns {Theme} */
export function theme() {
  const kept = localStorage.getItem(KEPT);
  return ALL.find((one) => one === kept) ?? "auto";
}

/** The next one. @returns {Theme} */
export function turn() {
  const next = ALL[(ALL.indexOf(theme()) + 1) % ALL.length];
  localStorage.setItem(KEPT, next);
  wear();
  return next;
}

export const wear = () => document.documentElement.setAttribute("data-theme", theme());
