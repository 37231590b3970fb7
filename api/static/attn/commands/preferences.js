// Preferences: pinned clusters and the layout of the overview. The edge stores them, so every browser shows the same.
import { showToast } from "./item_commands.js";
import { explain, ok, sendWrite } from "../http.js";
import { page } from "../state/page_state.js";

/** @typedef {import("../types").Preferences} Preferences */
/** @typedef {import("../types").Widget} Widget */

/** All widgets of the overview, in the default layout. */
export const WIDGETS = ["momentum", "drafts", "flow", "kinds", "clusters", "times", "people", "decisions"];

/**
 * Returns the widgets in the user's layout: those of the preferences, then the others. Unknown widgets belong to another client and
 * keep their positions.
 * @param {Preferences} preferences
 * @returns {Widget[]}
 */
export function layout({ widgets }) {
  const named = new Set(widgets.map((widget) => widget.id));
  return [...widgets, ...WIDGETS.filter((id) => !named.has(id)).map((id) => ({ id, visible: true }))];
}

/**
 * Returns the widgets after one was moved to the position of another.
 * @param {Widget[]} widgets
 * @param {string} id
 * @param {string} target widget at the new position
 */
export function moved(widgets, id, target) {
  const from = widgets.findIndex((widget) => widget.id === id), to = widgets.findIndex((widget) => widget.id === target);
  if (from < 0 || to < 0) return widgets;
  const next = widgets.filter((widget) => widget.id !== id);
  next.splice(to, 0, widgets[from]);
  return next;
}

/**
 * Saves changes of the preferences. The page shows them at once, and reverts them if the write fails.
 * @param {Partial<Preferences>} changes
 */
export async function savePreferences(changes) {
  const { inbox } = page.get(), before = inbox.preferences;
  page.set({ inbox: { ...inbox, preferences: { ...before, ...changes } } });
  const answer = await sendWrite("PATCH", "/org/me/preferences", changes);
  if (ok(answer)) return;
  page.set({ inbox: { ...page.get().inbox, preferences: before } });
  showToast(`Not saved: ${explain(answer)}`, { tone: "bad" });
}
