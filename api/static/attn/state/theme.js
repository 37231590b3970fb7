// Light, dark, or as the system is.

const STORAGE_KEY = "attn-theme";
/** @typedef {"auto" | "light" | "dark"} Theme */
/** @type {readonly Theme[]} */
const THEMES = ["auto", "light", "dark"];

/** @returns {Theme} */
export function theme() {
  const kept = localStorage.getItem(STORAGE_KEY);
  return THEMES.find((one) => one === kept) ?? "auto";
}

/** The next one. @returns {Theme} */
export function cycleTheme() {
  const next = THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length];
  localStorage.setItem(STORAGE_KEY, next);
  applyTheme();
  return next;
}

export const applyTheme = () => document.documentElement.setAttribute("data-theme", theme());
