// Pins and the layout of the overview, kept by the edge so that they are the same in every browser.
import { showToast } from "./item_commands.js";
import { explain, ok, sendWrite } from "../http.js";
import { page } from "../state/page_state.js";

/** @typedef {import("../types").Preferences} Preferences */
/** @typedef {import("../types").Widget} Widget */

/** What the overview can show; order is layout until a person has one of their own. */
export const WIDGETS = ["momentum", "drafts", "flow", "kinds", "clusters", "times", "people"];

/**
 * The widgets in a person's order: those of the preferences, then what is new since. Ones this page does not know are
 * another client's; they keep their places.
 * @param {Preferences} preferences
 * @returns {Widget[]}
 */
export function layout({ widgets }) {
  const named = new Set(widgets.map((widget) => widget.id));
  return [...widgets, ...WIDGETS.filter((id) => !named.has(id)).map((id) => ({ id, visible: true }))];
}

/**
 * A widget moved by some places among those this page shows.
 * @param {Widget[]} widgets
 * @param {string} id
 * @param {string} target the one whose place it takes
 */
export function moved(widgets, id, target) {
  const from = widgets.findIndex((widget) => widget.id === id), to = widgets.findIndex((widget) => widget.id === target);
  if (from < 0 || to < 0) return widgets;
  const next = widgets.filter((widget) => widget.id !== id);
  next.splice(to, 0, widgets[from]);
  return next;
}

/**
 * Shown at once, and taken back if the edge refuses.
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
