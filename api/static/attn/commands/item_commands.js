// Commands on items: read, unread, resolve, dismiss, snooze, restore, undo. The edge answers a write when it is durable; the
// feed then shows the change in every tab and browser.
import { withRevision, retryThrottled, replaceItem } from "./revision_check.js";
import { now } from "../clock.js";
import { request, explain, ok, sendWrite } from "../http.js";
import { linkTo } from "../text/links.js";
import { unfreezeList, listOnScreen, page, without } from "../state/page_state.js";
import { fetchDismissed } from "../state/paging.js";
import { formatTime, isolate, kindLabel, plural } from "../text/labels.js";

/** @typedef {import("../types").Item} Item */
/** @typedef {import("../http.js").Answer} Answer */

const MAX_BULK = 500; // ids per bulk request
const MAX_SINGLE_WRITES = 100; // items that are written one by one, each with its own revision; more items go as one bulk request
const SERIES_ENDS = new Set([0, 401, 429]); // statuses that end a series: the next item would fail in the same way
const TOAST_MS = 9000, ERROR_TOAST_MS = 15_000; // how long a message is shown
let lastToast = 0;

/**
 * Shows a message, also to screen readers.
 * @param {string} text
 * @param {{tone?: "calm" | "bad", links?: {href: string, text: string}[], undo?: (() => void) | null, until?: number}} [more] `until`: end of
 *   `undo`, milliseconds of the server's clock
 */
export function showToast(text, { tone = "calm", links = [], undo = null, until = 0 } = {}) {
  const toast = { id: ++lastToast, text, tone, links, undo, until };
  page.set({ toasts: [...page.get().toasts.slice(-2), toast], announcement: text });
  setTimeout(() => hideToast(toast.id), Math.max(tone === "bad" || links.length ? ERROR_TOAST_MS : TOAST_MS, until ? until - now() + 2000 : 0));
}

/** @param {number} id */
export const hideToast = (id) => page.set({ toasts: page.get().toasts.filter((toast) => toast.id !== id) });

/** Undoes the last command whose message is still shown. */
export function undo() {
  const last = page.get().toasts.findLast((toast) => toast.undo !== null && (!toast.until || toast.until > now()));
  if (!last) return showToast("Nothing to undo.");
  hideToast(last.id);
  last.undo?.();
}

/** Returns an item that the page knows. @param {string} id @returns {Item | undefined} */
export function findItem(id) {
  const { inbox, beyond, dismissed, openItem } = page.get();
  return [inbox.items, beyond.items, dismissed.items].map((items) => items.find((item) => item.id === id)).find(Boolean)
    ?? (openItem?.id === id ? openItem : undefined);
}

/** Returns the quoted title of one item, or the number of items, for a message. @param {readonly string[]} ids */
const titleOf = (ids) => (ids.length === 1 ? `“${isolate(findItem(ids[0])?.title ?? "Item")}”` : plural(ids.length, "item"));

/**
 * Runs a write and marks its items as pending. With `leaves`, the written items then leave the list without a trace, because
 * this user removed them.
 * @param {readonly string[]} ids
 * @param {() => Promise<Answer>} work
 * @param {boolean} leaves
 */
async function withPendingItems(ids, work, leaves) {
  page.set({ pending: new Set([...page.get().pending, ...ids]) });
  const answer = await work();
  const state = page.get();
  const gone = leaves && ok(answer) ? ids.filter((id) => !(answer.data?.skipped_ids ?? []).includes(id)) : [];
  page.set({
    pending: without(state.pending, ids), ownRemovals: new Set([...state.ownRemovals, ...gone]), selected: without(state.selected, gone),
    beyond: gone.length ? { ...state.beyond, items: state.beyond.items.filter((item) => !gone.includes(item.id)) } : state.beyond,
  });
  return answer;
}

/**
 * Shows why a command failed. After 409 the message links to the source of the item, unless attn takes its answer.
 * @param {Answer} answer
 * @param {string} what what failed
 * @param {Item} [item]
 */
function showFailure(answer, what, item) {
  if (answer.status === 409 && item?.ask) return showToast(`${what}: it asks a question. Open it to answer.`, { tone: "bad" });
  const href = linkTo(item?.action_url), links = item && href !== null ? [{ href, text: kindLabel(item.kind).verb }] : [];
  showToast(`${what}: ${explain(answer)}`, { tone: "bad", links: answer.status === 409 ? links : [] });
}

/**
 * Marks items as read or unread, for all users who may see them.
 * @param {readonly string[]} ids
 * @param {"read" | "unread"} state
 * @param {boolean} [quietly] whether a failure shows no message
 */
export async function setState(ids, state, quietly = false) {
  if (!ids.length) return;
  if (ids.length > 1) return state === "unread" && ids.length <= MAX_SINGLE_WRITES ? markUnread(ids) : changeMany(ids, state);
  const item = findItem(ids[0]);
  const answer = await withPendingItems(ids, () => setStateOfOne(ids[0], state), false);
  if (ok(answer)) {
    const current = findItem(ids[0]) ?? item;
    // An item that its source closed meanwhile, or that was decided, stays so: "read" only sets the time of reading.
    if (current && (current.state === "unread" || current.state === "read")) replaceItem({ ...current, state });
  } else if (!quietly) showFailure(answer, `Not marked ${state}`, item);
}

/**
 * Sets the state of an item at the revision that was shown: a late "unread" would reopen an item that its source has closed.
 * @param {string} id
 * @param {"read" | "unread"} state
 */
const setStateOfOne = (id, state) => withRevision(findItem(id), (revision) => retryThrottled(() => sendWrite("PATCH", `/api/v1/inbox/${encodeURIComponent(id)}`, { state }, revision)));

/** Marks items as unread one by one, because the bulk request has no revisions. @param {readonly string[]} ids */
async function markUnread(ids) {
  /** @type {Answer | null} */
  let bad = null;
  let marked = 0;
  for (const id of ids) {
    const answer = await withPendingItems([id], () => setStateOfOne(id, "unread"), false);
    if (ok(answer)) marked += 1;
    else bad = answer;
    if (SERIES_ENDS.has(answer.status)) break;
  }
  if (bad) return showFailure(bad, `${marked} of ${ids.length} marked unread`);
  page.set({ selected: new Set() });
  showToast(`${marked} marked unread.`);
}

/**
 * Resolves items for all users.
 * @param {readonly string[]} ids
 * @param {string} [action] what was done; stored with the item
 */
export async function resolve(ids, action) {
  if (!ids.length) return;
  if (ids.length > 1) return changeMany(ids, "resolved", action);
  const [id] = ids, item = findItem(id), name = titleOf(ids);
  const body = { state: "resolved", ...(action && { resolved_action: action }) };
  const next = nextOnScreen(ids);
  const answer = await withPendingItems(ids, () => withRevision(item, (revision) => sendWrite("PATCH", `/api/v1/inbox/${encodeURIComponent(id)}`, body, revision)), true);
  if (!ok(answer)) return showFailure(answer, `${name} was not resolved`, item);
  moveFocus(ids, next);
  showToast(`Resolved ${name} for everyone.`, { undo: () => reopen([id], action) });
}

/**
 * Undoes a resolve. An item that its source or another user has closed since stays closed.
 * @param {readonly string[]} ids
 * @param {string} [action] as it was resolved
 */
async function reopen(ids, action) {
  const { me } = page.get();
  /** @type {string[]} */
  const opened = [];
  let theirs = 0;
  for (const id of ids) {
    const path = `/api/v1/inbox/${encodeURIComponent(id)}`, current = await request("GET", path);
    if (SERIES_ENDS.has(current.status) || current.status >= 500) return showFailure(current, opened.length ? `${opened.length} reopened, then it stopped` : "Not reopened");
    const { state, revision, resolved_by_user_id: by, resolved_action: did } = current.data ?? {};
    const mine = ok(current) && state === "resolved" && by === me?.user_id && (action === undefined || did === action);
    const answer = mine ? await retryThrottled(() => sendWrite("PATCH", path, { state: "unread" }, revision)) : current;
    if (mine && ok(answer)) opened.push(id);
    else if (mine && SERIES_ENDS.has(answer.status)) return showFailure(answer, "Not reopened");
    else if (state === "resolved" || !ok(current)) theirs += 1;
  }
  page.set({ ownRemovals: without(page.get().ownRemovals, opened) });
  unfreezeList(); // items that this user restores are shown at once
  if (!theirs) return showToast(ids.length === 1 ? "Reopened." : `${opened.length} reopened.`);
  showToast(ids.length === 1 ? "Not reopened: its source or another user has closed it since."
    : `${opened.length} reopened, ${theirs} stay closed: their source or another user has closed them since.`, { tone: "bad" });
}

/**
 * Sets the state of many items by bulk requests. Items that only their source may resolve stay open; the message links to them.
 * @param {readonly string[]} ids
 * @param {"read" | "unread" | "resolved"} state
 * @param {string} [action]
 */
async function changeMany(ids, state, action) {
  const items = new Map(ids.map((id) => [id, findItem(id)]));
  const next = nextOnScreen(ids);
  let updated = 0, missing = 0;
  /** @type {string[]} */
  const skipped = [];
  for (let at = 0; at < ids.length; at += MAX_BULK) {
    const part = ids.slice(at, at + MAX_BULK);
    const body = { ids: part, state, ...(action && { resolved_action: action }) };
    const answer = await withPendingItems(part, () => sendWrite("POST", "/api/v1/inbox/bulk", body), state === "resolved");
    if (!ok(answer)) {
      showFailure(answer, updated ? `${updated} done, then it stopped` : "Nothing was changed");
      break;
    }
    updated += answer.data.updated;
    missing += answer.data.not_found;
    skipped.push(...answer.data.skipped_ids);
  }
  if (!updated && !skipped.length && !missing) return;
  const left = skipped.map((id) => items.get(id)).filter((item) => item !== undefined);
  const links = left.flatMap((item) => {
    const href = linkTo(item.action_url);
    return href === null ? [] : [{ href, text: `${kindLabel(item.kind).verb}: ${isolate(item.title)}` }];
  }).slice(0, 5);
  const parts = [state === "resolved" ? `${updated} resolved` : `${updated} marked ${state}`];
  if (skipped.length) parts.push(`${skipped.length} left open`);
  if (missing) parts.push(`${missing} not found`);
  const done = ids.filter((id) => !skipped.includes(id));
  page.set({ selected: new Set(skipped) });
  moveFocus(state === "resolved" ? done : [], next);
  const asking = left.length > 0 && left.every((item) => item.ask);
  const why = !skipped.length ? "." : asking ? ". Those ask a question: press Answer." : ". Decide those at their source: " + (links.length < left.length ? "they stay selected." : "");
  showToast(parts.join(", ") + why.trimEnd(), { links, undo: state === "resolved" && updated ? () => reopen(done, action) : null });
}

/**
 * Dismisses items for this user only; with `until` they are snoozed.
 * @param {readonly string[]} ids
 * @param {Date} [until] end of the snooze
 */
export async function dismiss(ids, until) {
  if (!ids.length) return;
  const next = nextOnScreen(ids), name = titleOf(ids);
  const body = until && { dismissed_until: until.toISOString() };
  /** @type {string[]} */
  const done = [];
  /** @type {Answer | null} */
  let bad = null;
  for (const id of ids) {
    const send = (/** @type {number | undefined} */ revision) => retryThrottled(() => sendWrite("POST", `/org/me/inbox/${encodeURIComponent(id)}/dismiss`, body, revision));
    const answer = await withPendingItems([id], () => withRevision(findItem(id), send), true);
    if (ok(answer)) done.push(id);
    else bad = answer;
    if (SERIES_ENDS.has(answer.status)) break;
  }
  if (bad) showFailure(bad, ids.length === 1 ? `${name} was not dismissed` : `${done.length} of ${ids.length} dismissed`, findItem(ids[0]));
  if (!done.length) return;
  moveFocus(done, next);
  if (page.get().dismissed.loaded) fetchDismissed(page); // the sidebar shows their number
  showToast(until ? `Snoozed ${name} until ${formatTime(until.toISOString())}.` : `Dismissed ${name}, for you only.`, { undo: () => restore(done) });
}

/** Restores dismissed or snoozed items. @param {readonly string[]} ids */
export async function restore(ids) {
  for (const id of ids) {
    const answer = await withPendingItems([id], () => sendWrite("DELETE", `/org/me/inbox/${encodeURIComponent(id)}/dismiss`), false);
    if (!ok(answer)) return showFailure(answer, "Not restored", findItem(id));
  }
  const { ownRemovals, dismissed, removed } = page.get();
  page.set({
    ownRemovals: without(ownRemovals, ids), selected: new Set(), dismissed: { ...dismissed, items: dismissed.items.filter((item) => !ids.includes(item.id)) },
    removed: new Map([...removed].filter(([id]) => !ids.includes(id))),
  });
  unfreezeList();
  if (page.get().view === "dismissed") await fetchDismissed(page);
  showToast(`Restored ${plural(ids.length, "item")} to your list.`);
}

/**
 * Returns the item after these on screen: it gets the focus when they leave the list.
 * @param {readonly string[]} ids
 */
export function nextOnScreen(ids) {
  const rows = listOnScreen(page.get()).shown.filter((row) => !row.gone).map((row) => row.item.id);
  const last = Math.max(...ids.map((id) => rows.indexOf(id)));
  return rows.slice(last + 1).find((id) => !ids.includes(id)) ?? rows.findLast((id) => !ids.includes(id)) ?? null;
}

/**
 * Moves the focus to `next` if it was on one of these items, and closes them.
 * @param {readonly string[]} ids
 * @param {string | null} next
 */
function moveFocus(ids, next) {
  const { activeId, openId } = page.get();
  page.set({
    activeId: activeId !== null && ids.includes(activeId) ? next : activeId,
    ...(openId !== null && ids.includes(openId) ? { openId: null, openItem: null } : {}),
  });
}
