// The page's state: one object, replaced, never changed; whoever listens hears at most once a frame.

/** @typedef {import("../types").Inbox} Inbox */
/** @typedef {import("../types").Item} Item */
/** @typedef {import("../types").Me} Me */
/** @typedef {import("../feed/connection.js").Link} Link */
/** @typedef {import("./filters.js").Filters} Filters */
/** @typedef {import("./list_freeze.js").FrozenList} Held */
/** @typedef {"open" | "unread" | "dismissed"} View */
/** @typedef {{items: readonly Item[], next: string | null, loading: boolean, loaded: boolean, stale: boolean}} Pages */
/** @typedef {{id: number, text: string, tone: "calm" | "bad", links: {href: string, text: string}[], undo: (() => void) | null}} Toast */
/**
 * @typedef {object} State
 * @property {"starting" | "out" | "in"} phase
 * @property {string} signedOutReason why it is signed out
 * @property {Me | null} me
 * @property {Inbox} inbox
 * @property {Link} link
 * @property {boolean} isLeader whether this tab has the connection
 * @property {Pages} beyond what lies beyond the feed's window
 * @property {Pages} dismissed what was put away
 * @property {View} view
 * @property {Filters} filters
 * @property {Held | null} frozen
 * @property {ReadonlySet<string>} ownRemovals what this person made go
 * @property {ReadonlyMap<string, string>} removed why something went
 * @property {ReadonlySet<string>} highlighted what slides in
 * @property {ReadonlySet<string>} selected
 * @property {string | null} selectionAnchor of a choice with shift
 * @property {string | null} activeId where the keyboard is
 * @property {string | null} openId in the detail
 * @property {Item | null} openItem as it was last seen
 * @property {ReadonlySet<string>} pending
 * @property {readonly Toast[]} toasts
 * @property {string} announcement what a screen reader is told
 * @property {null | "help" | "snooze" | "filters"} dialog
 * @property {readonly string[]} snoozing ids the dialog is about
 * @property {boolean} overview on a narrow screen: the overview instead of the list
 * @property {boolean} notificationsOn
 */

/**
 * @template {object} S
 * @param {S} initial
 */
export function store(initial) {
  let state = initial;
  let waiting = false;
  /** @type {Set<(state: S) => void>} */
  const listeners = new Set();
  const tell = () => {
    waiting = false;
    for (const listen of listeners) {
      try {
        listen(state);
      } catch (problem) {
        reportError(problem); // the others hear of the change all the same
      }
    }
  };
  // A frame that was waited for as the tab was hidden does not come until it is shown again.
  document.addEventListener("visibilitychange", () => waiting && document.hidden && setTimeout(tell, 50));
  return {
    get: () => state,
    /** @param {Partial<S>} changes */
    set(changes) {
      state = { ...state, ...changes };
      if (waiting) return;
      waiting = true;
      // A hidden tab draws no frames, but its title and bell still go on.
      if (document.hidden) setTimeout(tell, 50);
      else requestAnimationFrame(tell);
    },
    /** @param {(state: S) => void} listen */
    listen(listen) {
      listeners.add(listen);
      return () => listeners.delete(listen);
    },
  };
}

/** @type {Pages} */
export const NO_PAGES = Object.freeze({ items: [], next: null, loading: false, loaded: false, stale: false });

/** @typedef {ReturnType<typeof store<State>>} Store */
