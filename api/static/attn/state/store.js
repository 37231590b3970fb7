// Store of the page's state: one immutable object that is replaced. Listeners are called at most once per animation frame.

/** @typedef {import("../types").Inbox} Inbox */
/** @typedef {import("../types").Item} Item */
/** @typedef {import("../types").Me} Me */
/** @typedef {import("../feed/connection.js").Link} Link */
/** @typedef {import("./filters.js").Filters} Filters */
/** @typedef {import("./list_freeze.js").FrozenList} FrozenList */
/** @typedef {"open" | "unread" | "dismissed" | "decisions"} View */
/** @typedef {{items: readonly Item[], next: string | null, loading: boolean, loaded: boolean, stale: boolean}} Pages */
/** @typedef {{rows: readonly import("../types").DecisionRow[], next: string | null, loading: boolean, loaded: boolean, failed: boolean, state: string}} Decisions `state`: the filter, or "" */
/** @typedef {{id: number, text: string, tone: "calm" | "bad", links: {href: string, text: string}[], undo: (() => void) | null, until: number}} Toast `until`: end of `undo`, milliseconds of the server's clock; 0: as long as the message is shown */
/**
 * @typedef {object} State
 * @property {"starting" | "out" | "in"} phase
 * @property {string} signedOutReason why the user is signed out
 * @property {Me | null} me
 * @property {Inbox} inbox
 * @property {Link} link
 * @property {boolean} isLeader whether this tab holds the feed connection
 * @property {Pages} beyond items beyond the feed's window
 * @property {Pages} dismissed items that the user dismissed or snoozed
 * @property {View} view
 * @property {Filters} filters
 * @property {FrozenList | null} frozen order of the list while the user interacts with it
 * @property {ReadonlySet<string>} ownRemovals ids of items that this user removed from the list
 * @property {ReadonlyMap<string, string>} removed reason of each removal, by id
 * @property {ReadonlySet<string>} highlighted ids of new items
 * @property {ReadonlySet<string>} selected
 * @property {string | null} selectionAnchor start of a range selection
 * @property {string | null} activeId item with the keyboard focus
 * @property {string | null} openId item in the detail view
 * @property {Item | null} openItem last known content of the open item
 * @property {ReadonlySet<string>} pending
 * @property {readonly Toast[]} toasts
 * @property {string} announcement text for screen readers
 * @property {Decisions} decisions what the user decided or may see
 * @property {null | "help" | "snooze" | "filters" | "answers" | "keys" | "sessions" | "terminal"} dialog
 * @property {string} terminal request of a terminal that the dialog shows
 * @property {readonly string[]} snoozing ids that the snooze dialog applies to
 * @property {boolean} overview whether a narrow screen shows the overview instead of the list
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
  const notify = () => {
    waiting = false;
    for (const listen of listeners) {
      try {
        listen(state);
      } catch (problem) {
        reportError(problem); // the other listeners are still called
      }
    }
  };
  // A frame that was requested before the tab was hidden is not run until the tab is visible again.
  document.addEventListener("visibilitychange", () => waiting && document.hidden && setTimeout(notify, 50));
  return {
    get: () => state,
    /** @param {Partial<S>} changes */
    set(changes) {
      state = { ...state, ...changes };
      if (waiting) return;
      waiting = true;
      // A hidden tab runs no animation frames, but its title and icon must stay current.
      if (document.hidden) setTimeout(notify, 50);
      else requestAnimationFrame(notify);
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

/** @type {Decisions} */
export const NO_DECISIONS = Object.freeze({ rows: [], next: null, loading: false, loaded: false, failed: false, state: "" });

/** @typedef {ReturnType<typeof store<State>>} Store */
