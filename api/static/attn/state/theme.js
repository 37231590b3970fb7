// Theme of the page: light, dark, or that of the system (auto). Stored in localStorage.

const STORAGE_KEY = "attn-theme";
/** @typedef {"auto" | "light" | "dark"} Theme */
/** @type {readonly Theme[]} */
const THEMES = ["auto", "light", "dark"];

/** @returns {Theme} */
export function theme() {
  const stored = localStorage.getItem(STORAGE_KEY);
  return THEMES.find((one) => one === stored) ?? "auto";
}

/** Switches to the next theme and returns it. @returns {Theme} */
export function cycleTheme() {
  const next = THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length];
  localStorage.setItem(STORAGE_KEY, next);
  applyTheme();
  return next;
}

export const applyTheme = () => document.documentElement.setAttribute("data-theme", theme());
