// What the page knows and how it changes: the feed, the session, the pages beyond, the order on screen.
import { setFromHeartbeat } from "../clock.js";
import { CONNECTING } from "../feed/connection.js";
import { active, matching, NONE } from "./filters.js";
import { before, EMPTY } from "../fold.js";
import { arrange, hold } from "./list_freeze.js";
import { ask, cookie, ok } from "../http.js";
import { fetchAll, fetchAway } from "./paging.js";
import { end, start } from "./session.js";
import { NO_PAGES, store } from "./store.js";
import { share } from "../feed/tab_sharing.js";
import { GONE, isolated } from "../text/labels.js";

/** @typedef {import("../types").Item} Item */
/** @typedef {import("../types").Frame} Frame */
/** @typedef {import("./store.js").State} State */

const LIMIT = 500; // the live window; what lies beyond is fetched by scrolling
const FRESH = 1200; // milliseconds for which something new is shown as such

/** @type {State} */
const INITIAL = {
  phase: "starting", said: "", me: null, inbox: EMPTY, link: CONNECTING, leads: false, tail: NO_PAGES, away: NO_PAGES,
  view: "open", filters: NONE, held: null, mine: new Set(), gone: new Map(), fresh: new Set(), chosen: new Set(), anchor: null,
  active: null, open: null, opened: null, busy: new Set(), toasts: [], heard: "", dialog: null, snoozing: [], overview: false,
  notifies: false,
};

/** Who it is, where the edge can't say just now. @type {import("../types").Me} */
const UNKNOWN = { user_id: "", workspace_id: "", role: "", expires_at: "" };

export const page = store(INITIAL);

/** @type {ReturnType<typeof share> | null} */
let line = null;

/** Begin with the session there is, or ask for one. */
export function begin() {
  if (!cookie("attn_csrf")) return page.set({ phase: "out", said: "" });
  page.set({ phase: "in" });
  line ??= share({ limit: LIMIT, changed, status, elsewhere: () => location.reload() });
  ask("GET", "/org/me").then((answer) => page.set({ me: ok(answer) ? answer.data : UNKNOWN }));
}

/**
 * @param {string} token
 * @returns {Promise<string>} why not, or ""
 */
export async function signIn(token) {
  const { me, problem } = await start(token);
  if (!me) return problem;
  page.set({ me });
  new BroadcastChannel("attn-feed").postMessage({ says: "session" });
  begin();
  return "";
}

/** @returns {Promise<string>} why the session has not ended, or "" */
export async function signOut() {
  const problem = await end();
  if (problem) return problem;
  line?.sessionChanged();
  line?.close();
  line = null;
  page.set({ ...INITIAL, phase: "out" });
  return "";
}

export const wake = () => line?.wake();

/**
 * @param {import("../types").Inbox} inbox
 * @param {Frame[]} frames
 */
function changed(inbox, frames) {
  const { inbox: was, held, gone, fresh, tail, heard, open } = page.get();
  const reasons = new Map(gone), slides = new Set(fresh);
  let { opened } = page.get();
  let told = heard, stale = tail.stale;
  for (const { event, data } of frames) {
    if (event === "removed") {
      reasons.set(data.id, data.resolved_action ? data.resolved_action.replaceAll("_", " ") : GONE[data.reason] ?? "gone");
      stale ||= tail.loaded;
      if (opened && opened.id === data.id && data.reason === "resolved") opened = { ...opened, state: "resolved", resolved_action: data.resolved_action };
    } else if (event === "added") {
      reasons.delete(data.item.id);
      slides.add(data.item.id);
      setTimeout(() => page.set({ fresh: without(page.get().fresh, [data.item.id]) }), FRESH);
      told = `New, ${data.item.band}: ${isolated(data.item.title)}`;
      stale ||= tail.loaded;
    } else if (event === "heartbeat") setFromHeartbeat(data.at);
  }
  const first = was.cursor === null;
  page.set({
    inbox, gone: reasons, fresh: first ? fresh : slides, heard: told, held: first ? null : held,
    tail: stale === tail.stale ? tail : { ...tail, stale },
    opened: inbox.items.find((item) => item.id === open) ?? opened,
  });
}

/**
 * @param {import("../feed/connection.js").Link} link
 * @param {boolean} leads
 */
function status(link, leads) {
  if (link.state === "ended") {
    line?.close();
    line = null;
    return page.set({ ...INITIAL, phase: "out", said: `${link.text}. Please sign in again.` });
  }
  page.set({ link, leads });
}

/**
 * All that is known of the open list, in order: the live window and the pages beyond it.
 * @param {State} state
 * @returns {readonly Item[]}
 */
export const known = memo((/** @type {State} */ { inbox, tail }) => [inbox.items, tail.items], (items, beyond) => {
  const last = items[items.length - 1];
  if (!last || !beyond.length) return items;
  const live = new Set(items.map((item) => item.id));
  return [...items, ...beyond.filter((item) => !live.has(item.id) && before(item, last) > 0)];
});

/** What the view and its filters leave, before anything is held. */
export const wanted = memo(
  (/** @type {State} */ state) => [state.view === "away" ? state.away.items : known(state), state.filters, state.view],
  (items, filters, view) => matching(items, filters, view === "unread"));

/** What is on screen, and how much waits. */
export const onScreen = memo(
  (/** @type {State} */ state) => [wanted(state), state.view === "away" ? null : state.held, state.mine],
  (items, held, mine) => arrange(items, held, mine));

/** Whether it was put away, as far as is known here. @param {State} state @param {string} id */
export function isAway({ view, inbox, away, gone }, id) {
  if (view === "away") return true;
  if (inbox.items.some((item) => item.id === id)) return false;
  return away.items.some((item) => item.id === id) || [GONE.dismissed, GONE.snoozed].includes(gone.get(id) ?? "");
}

/** Whether the list goes on beyond what was fetched. */
export const hasMore = (/** @type {State} */ state) => state.view === "away"
  ? state.away.next !== null
  : state.inbox.counts.total > known(state).length;

/**
 * The last result, while what it is made of stays the same.
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
 * @template T
 * @param {ReadonlySet<T>} set
 * @param {readonly T[]} less
 */
export const without = (set, less) => new Set([...set].filter((one) => !less.includes(one)));

/** The pointer or the keyboard is on the list: hold the order. */
export function take() {
  const state = page.get();
  if (state.held === null && state.view !== "away") page.set({ held: hold(wanted(state)) });
}

/** Let go: what waited comes in. */
export function letGo() {
  if (page.get().held !== null) page.set({ held: null, mine: new Set() });
}

/** Show what waits behind the pill, and hold that. */
export function showFresh() {
  const state = page.get();
  page.set({ held: state.held && hold(wanted(state)), mine: new Set() });
}

/** Where the list and an item are side by side. */
export const WIDE = "(min-width: 1100px)";

/** @param {Partial<Pick<State, "view" | "filters">>} changes */
export function look(changes) {
  page.set({ ...changes, held: null, mine: new Set(), chosen: new Set(), anchor: null, overview: false });
  if (!matchMedia(WIDE).matches) page.set({ open: null, opened: null }); // the list is asked for, and it lies below
  const state = page.get();
  if (state.view === "away") fetchAway(page);
  else if (active(state.filters) || state.view === "unread") fetchAll(page);
}
