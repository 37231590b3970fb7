// The switch of single-key shortcuts (WCAG 2.1.4).

const STORAGE_KEY = "attn-keys-off";
export const shortcutsEnabled = () => localStorage.getItem(STORAGE_KEY) === null;
/** @param {boolean} on */
export const setShortcutsEnabled = (on) => (on ? localStorage.removeItem(STORAGE_KEY) : localStorage.setItem(STORAGE_KEY, "1"));
