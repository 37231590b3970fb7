// State of the page and its transitions: session, feed, pages beyond the window, order of the list; selectors.
import { setFromHeartbeat } from "../clock.js";
import { CONNECTING } from "../feed/connection.js";
import { isActive, matching, NO_FILTERS } from "./filters.js";
import { before, EMPTY } from "../fold.js";
import { arrange, freeze } from "./list_freeze.js";
import { request, readCookie, ok } from "../http.js";
import { fetchDecisions } from "./decision_pages.js";
import { fetchAll, fetchDismissed } from "./paging.js";
import { endSession, createSession } from "./session.js";
import { redeemLink } from "./sign_in_link.js";
import { NO_DECISIONS, NO_PAGES, store } from "./store.js";
import { shareFeed } from "../feed/tab_sharing.js";
import { clearDrafts } from "../answer/drafts.js";
import { REMOVAL_REASONS, isolate } from "../text/labels.js";

/** @typedef {import("../types").Item} Item */
/** @typedef {import("../types").Frame} Frame */
/** @typedef {import("./store.js").State} State */

const WINDOW = 500; // items in the live window; later items are fetched when the user scrolls
const HIGHLIGHT_MS = 1200; // how long a new item is highlighted

/** @type {State} */
const INITIAL = {
  phase: "starting", signedOutReason: "", me: null, inbox: EMPTY, link: CONNECTING, isLeader: false, beyond: NO_PAGES, dismissed: NO_PAGES,
  view: "open", filters: NO_FILTERS, frozen: null, ownRemovals: new Set(), removed: new Map(), highlighted: new Set(), selected: new Set(), selectionAnchor: null,
  activeId: null, openId: null, openItem: null, pending: new Set(), toasts: [], announcement: "", dialog: null, terminal: "", snoozing: [], overview: false,
  decisions: NO_DECISIONS,
  notificationsOn: false,
};

/** The caller if GET /org/me fails. @type {import("../types").Me} */
const UNKNOWN = { user_id: "", workspace_id: "", role: "", expires_at: "", workspaces: [] };

export const page = store(INITIAL);

/** @type {ReturnType<typeof shareFeed> | null} */
let feed = null;

/** Starts the feed if the browser has a session cookie; else shows the sign-in form. */
export function openSession() {
  if (!readCookie("attn_csrf")) return page.set({ phase: "out", signedOutReason: "" });
  page.set({ phase: "in" });
  feed ??= shareFeed({ limit: WINDOW, onFrames, onLink, onSessionChange: () => location.reload() });
  request("GET", "/org/me").then((answer) => page.set({ me: ok(answer) ? answer.data : UNKNOWN }));
}

/**
 * @param {string} token
 * @returns {Promise<string>} why it failed, or ""
 */
export async function signIn(token) {
  const { me, problem } = await createSession(token);
  if (!me) return problem;
  page.set({ me });
  new BroadcastChannel("attn-feed").postMessage({ says: "session" });
  openSession();
  return "";
}

/** Signs in by a link, or shows why it is refused. @param {string} link */
export async function signInByLink(link) {
  const problem = await redeemLink(link);
  if (problem) return page.set({ phase: "out", signedOutReason: problem });
  new BroadcastChannel("attn-feed").postMessage({ says: "session" });
  openSession();
}

/** Enters another workspace of the session, and remembers it. @param {string} id */
export function switchWorkspace(id) {
  document.cookie = `attn_workspace=${encodeURIComponent(id)}; path=/; max-age=31536000; samesite=lax`;
  feed?.sessionChanged();
  location.replace(location.pathname); // without the item
}

/** @returns {Promise<string>} why the session has not ended, or "" */
export async function signOut() {
  const { problem, elsewhere } = await endSession(page.get().me?.session_id !== undefined);
  if (problem) return problem;
  clearDrafts(sessionStorage);
  feed?.sessionChanged();
  feed?.close();
  feed = null;
  page.set({ ...INITIAL, phase: "out" });
  if (elsewhere) location.assign(elsewhere);
  return "";
}

export const retryNow = () => feed?.wake();

/**
 * Takes over the inbox after some frames: reasons of removals, highlights, announcement, the open item.
 * @param {import("../types").Inbox} inbox
 * @param {Frame[]} frames
 */
function onFrames(inbox, frames) {
  const { inbox: was, frozen, removed, highlighted, beyond, announcement, openId } = page.get();
  const reasons = new Map(removed), slides = new Set(highlighted);
  let { openItem } = page.get();
  let spoken = announcement, stale = beyond.stale;
  for (const { event, data } of frames) {
    if (event === "removed") {
      reasons.set(data.id, data.resolved_action ? data.resolved_action.replaceAll("_", " ") : REMOVAL_REASONS[data.reason] ?? "gone");
      stale ||= beyond.loaded;
      if (openItem && openItem.id === data.id && data.reason === "resolved") openItem = { ...openItem, state: "resolved", resolved_action: data.resolved_action };
      else if (openItem && openItem.id === data.id && data.reason === "decided" && openItem.state !== "decided") openItem = { ...openItem, state: "decided", decision: undefined };
    } else if (event === "added") {
      reasons.delete(data.item.id);
      slides.add(data.item.id);
      setTimeout(() => page.set({ highlighted: without(page.get().highlighted, [data.item.id]) }), HIGHLIGHT_MS);
      spoken = `New, ${data.item.band}: ${isolate(data.item.title)}`;
      stale ||= beyond.loaded;
    } else if (event === "heartbeat") setFromHeartbeat(data.at);
  }
  const first = was.cursor === null;
  page.set({
    inbox, removed: reasons, highlighted: first ? highlighted : slides, announcement: spoken, frozen: first ? null : frozen,
    beyond: stale === beyond.stale ? beyond : { ...beyond, stale },
    openItem: newest(inbox.items.find((item) => item.id === openId), openItem),
  });
}

/**
 * Returns the newer one of two versions of the open item: the response of a write may be ahead of the feed.
 * @param {Item | undefined} live
 * @param {Item | null} open
 */
function newest(live, open) {
  if (!live || !open || open.id !== live.id) return live ?? open;
  return open.revision > live.revision || (open.revision === live.revision && open.state === "decided") ? open : live;
}

/**
 * Takes over the state of the connection; signs out when the session has ended.
 * @param {import("../feed/connection.js").Link} link
 * @param {boolean} isLeader
 */
function onLink(link, isLeader) {
  if (link.state === "ended") {
    feed?.close();
    feed = null;
    return page.set({ ...INITIAL, phase: "out", signedOutReason: `${link.text}. Sign in again.` });
  }
  page.set({ link, isLeader });
}

/**
 * Returns the known items of the open list in order: the live window and the pages beyond it.
 * @param {State} state
 * @returns {readonly Item[]}
 */
export const knownItems = memo((/** @type {State} */ { inbox, beyond }) => [inbox.items, beyond.items], (items, beyond) => {
  const last = items[items.length - 1];
  if (!last || !beyond.length) return items;
  const live = new Set(items.map((item) => item.id));
  return [...items, ...beyond.filter((item) => !live.has(item.id) && before(item, last) > 0)];
});

/** Returns the items of the view after its filters, before the order is frozen. */
export const filteredItems = memo(
  (/** @type {State} */ state) => [state.view === "dismissed" ? state.dismissed.items : knownItems(state), state.filters, state.view],
  (items, filters, view) => matching(items, filters, view === "unread"));

/** Returns the rows on screen, and how many changes the frozen order hides. */
export const listOnScreen = memo(
  (/** @type {State} */ state) => [filteredItems(state), state.view === "dismissed" ? null : state.frozen, state.ownRemovals],
  (items, held, mine) => arrange(items, held, mine));

/** Whether the item is dismissed or snoozed, as far as the page knows. @param {State} state @param {string} id */
export function isDismissed({ view, inbox, dismissed, removed }, id) {
  if (view === "dismissed") return true;
  if (inbox.items.some((item) => item.id === id)) return false;
  return dismissed.items.some((item) => item.id === id) || [REMOVAL_REASONS.dismissed, REMOVAL_REASONS.snoozed].includes(removed.get(id) ?? "");
}

/** Whether the list has more items than those that were fetched. */
export const hasMore = (/** @type {State} */ state) => state.view === "dismissed"
  ? state.dismissed.next !== null
  : state.inbox.counts.total > knownItems(state).length;

/**
 * Memoises a selector: returns the last result while its inputs stay the same.
 * @template {any[]} Parts
 * @template Result
 * @param {(state: State) => [...Parts]} pick
 * @param {(...parts: Parts) => Result} make
 */
function memo(pick, make) {
  /** @type {{parts: Parts, result: Result} | null} */
  let last = null;
  return (/** @type {State} */ state) => {
    const parts = pick(state);
    if (last === null || parts.some((part, place) => part !== /** @type {NonNullable<typeof last>} */ (last).parts[place])) {
      last = { parts, result: make(...parts) };
    }
    return last.result;
  };
}

/**
 * Returns a copy of the set without some elements.
 * @template T
 * @param {ReadonlySet<T>} set
 * @param {readonly T[]} less
 */
export const without = (set, less) => new Set([...set].filter((one) => !less.includes(one)));

/** Freezes the order of the list, because the pointer or the keyboard is on it. */
export function freezeList() {
  const state = page.get();
  if (state.frozen === null && state.view !== "dismissed") page.set({ frozen: freeze(filteredItems(state)) });
}

/** Unfreezes the list: pending changes are shown. */
export function unfreezeList() {
  if (page.get().frozen !== null) page.set({ frozen: null, ownRemovals: new Set() });
}

/** Shows the pending changes and freezes the new order. */
export function showPending() {
  const state = page.get();
  page.set({ frozen: state.frozen && freeze(filteredItems(state)), ownRemovals: new Set() });
}

/** Media query of a screen with list and item side by side. */
export const WIDE = "(min-width: 1100px)";

/** Changes the view or the filters, and fetches what they need. @param {Partial<Pick<State, "view" | "filters">>} changes */
export function navigate(changes) {
  page.set({ ...changes, frozen: null, ownRemovals: new Set(), selected: new Set(), selectionAnchor: null, overview: false });
  if (!matchMedia(WIDE).matches) page.set({ openId: null, openItem: null }); // the item covers the list on a narrow screen
  const state = page.get();
  if (state.view === "dismissed") fetchDismissed(page);
  else if (state.view === "decisions") fetchDecisions(page);
  else if (isActive(state.filters) || state.view === "unread") fetchAll(page);
}
