// What a person does to items. Each write is answered after it is durable; the feed then shows it, here and everywhere.
import { asSeen, retryThrottled, replaceItem } from "./revision_check.js";
import { ask, explain, ok, write } from "../http.js";
import { linkTo } from "../text/links.js";
import { letGo, onScreen, page, without } from "../state/page_state.js";
import { fetchAway } from "../state/paging.js";
import { clock, isolated, kind, plural } from "../text/labels.js";

/** @typedef {import("../types").Item} Item */
/** @typedef {import("../http.js").Answer} Answer */

const MOST = 500; // ids in one request
const EACH = 100; // items that are written one by one, each for its own revision; more go as one request
const FINAL = new Set([0, 401, 429]); // statuses that end a series: the next item would get the same
const STAYS = 9000, STAYS_BAD = 15_000; // milliseconds a message is shown
let number = 0;

/**
 * @param {string} text
 * @param {{tone?: "calm" | "bad", links?: {href: string, text: string}[], undo?: (() => void) | null}} [more]
 */
export function say(text, { tone = "calm", links = [], undo = null } = {}) {
  const toast = { id: ++number, text, tone, links, undo };
  page.set({ toasts: [...page.get().toasts.slice(-2), toast], heard: text });
  setTimeout(() => hush(toast.id), tone === "bad" || links.length ? STAYS_BAD : STAYS);
}

/** @param {number} id */
export const hush = (id) => page.set({ toasts: page.get().toasts.filter((toast) => toast.id !== id) });

/** Undo what was done last, if its message is still there. */
export function undo() {
  const last = page.get().toasts.findLast((toast) => toast.undo !== null);
  if (!last) return say("Nothing to undo.");
  hush(last.id);
  last.undo?.();
}

/** @param {string} id @returns {Item | undefined} */
export function find(id) {
  const { inbox, tail, away, opened } = page.get();
  return [inbox.items, tail.items, away.items].map((items) => items.find((item) => item.id === id)).find(Boolean)
    ?? (opened?.id === id ? opened : undefined);
}

/** A title within a sentence. @param {readonly string[]} ids */
const title = (ids) => (ids.length === 1 ? `“${isolated(find(ids[0])?.title ?? "Item")}”` : plural(ids.length, "item"));

/**
 * Busy while it lasts; then what was asked for has gone from the list at this person's own wish.
 * @param {readonly string[]} ids
 * @param {() => Promise<Answer>} work
 * @param {boolean} leaves
 */
async function during(ids, work, leaves) {
  page.set({ busy: new Set([...page.get().busy, ...ids]) });
  const answer = await work();
  const state = page.get();
  const gone = leaves && ok(answer) ? ids.filter((id) => !(answer.data?.skipped_ids ?? []).includes(id)) : [];
  page.set({
    busy: without(state.busy, ids), mine: new Set([...state.mine, ...gone]), chosen: without(state.chosen, gone),
    tail: gone.length ? { ...state.tail, items: state.tail.items.filter((item) => !gone.includes(item.id)) } : state.tail,
  });
  return answer;
}

/**
 * @param {Answer} answer
 * @param {string} what
 * @param {Item} [item]
 */
function refused(answer, what, item) {
  const href = linkTo(item?.action_url), links = item && href !== null ? [{ href, text: kind(item.kind).verb }] : [];
  say(`${what}: ${explain(answer)}`, { tone: "bad", links: answer.status === 409 ? links : [] });
}

/**
 * @param {readonly string[]} ids
 * @param {"read" | "unread"} state
 * @param {boolean} [quietly]
 */
export async function mark(ids, state, quietly = false) {
  if (!ids.length) return;
  if (ids.length > 1) return state === "unread" && ids.length <= EACH ? markUnread(ids) : bulk(ids, state);
  const item = find(ids[0]);
  const answer = await during(ids, () => markOne(ids[0], state), false);
  if (ok(answer)) item && replaceItem({ ...find(ids[0]) ?? item, state });
  else if (!quietly) refused(answer, `Not marked ${state}`, item);
}

/**
 * Marks an item for the revision that was shown: a late "unread" would reopen an item that its source closed meanwhile.
 * @param {string} id
 * @param {"read" | "unread"} state
 */
const markOne = (id, state) => asSeen(find(id), (revision) => retryThrottled(() => write("PATCH", `/api/v1/inbox/${encodeURIComponent(id)}`, { state }, revision)));

/** Marks items unread one by one, because the bulk request has no revisions. @param {readonly string[]} ids */
async function markUnread(ids) {
  /** @type {Answer | null} */
  let bad = null;
  let marked = 0;
  for (const id of ids) {
    const answer = await during([id], () => markOne(id, "unread"), false);
    if (ok(answer)) marked += 1;
    else bad = answer;
    if (FINAL.has(answer.status)) break;
  }
  if (bad) return refused(bad, `${marked} of ${ids.length} marked unread`);
  page.set({ chosen: new Set() });
  say(`${marked} marked unread.`);
}

/**
 * @param {readonly string[]} ids
 * @param {string} [action] what was done, for the record
 */
export async function resolve(ids, action) {
  if (!ids.length) return;
  if (ids.length > 1) return bulk(ids, "resolved", action);
  const [id] = ids, item = find(id), name = title(ids);
  const body = { state: "resolved", ...(action && { resolved_action: action }) };
  const next = after(ids);
  const answer = await during(ids, () => asSeen(item, (revision) => write("PATCH", `/api/v1/inbox/${encodeURIComponent(id)}`, body, revision)), true);
  if (!ok(answer)) return refused(answer, `${name} stays open`, item);
  leave(ids, next);
  say(`Resolved ${name} for everyone.`, { undo: () => reopen([id], action) });
}

/**
 * Undoes a resolve. An item that its source or another person closed since stays closed.
 * @param {readonly string[]} ids
 * @param {string} [action] as it was resolved
 */
async function reopen(ids, action) {
  const { me } = page.get();
  /** @type {string[]} */
  const opened = [];
  let theirs = 0;
  for (const id of ids) {
    const path = `/api/v1/inbox/${encodeURIComponent(id)}`, now = await ask("GET", path);
    if (FINAL.has(now.status) || now.status >= 500) return refused(now, opened.length ? `${opened.length} opened again, then it stopped` : "Not opened again");
    const { state, revision, resolved_by_user_id: by, resolved_action: did } = now.data ?? {};
    const mine = ok(now) && state === "resolved" && by === me?.user_id && (action === undefined || did === action);
    const answer = mine ? await retryThrottled(() => write("PATCH", path, { state: "unread" }, revision)) : now;
    if (mine && ok(answer)) opened.push(id);
    else if (mine && FINAL.has(answer.status)) return refused(answer, "Not opened again");
    else if (state === "resolved" || !ok(now)) theirs += 1;
  }
  page.set({ mine: without(page.get().mine, opened) });
  letGo(); // what this person brings back does not wait behind the pill
  if (!theirs) return say(ids.length === 1 ? "Open again." : `${opened.length} opened again.`);
  say(ids.length === 1 ? "It stays closed: its source or somebody else closed it meanwhile."
    : `${opened.length} opened again, ${theirs} stay closed: their source or somebody else closed them meanwhile.`, { tone: "bad" });
}

/**
 * Many at once; what its source must decide is left open, and led to.
 * @param {readonly string[]} ids
 * @param {"read" | "unread" | "resolved"} state
 * @param {string} [action]
 */
async function bulk(ids, state, action) {
  const items = new Map(ids.map((id) => [id, find(id)]));
  const next = after(ids);
  let updated = 0, missing = 0;
  /** @type {string[]} */
  const skipped = [];
  for (let at = 0; at < ids.length; at += MOST) {
    const part = ids.slice(at, at + MOST);
    const body = { ids: part, state, ...(action && { resolved_action: action }) };
    const answer = await during(part, () => write("POST", "/api/v1/inbox/bulk", body), state === "resolved");
    if (!ok(answer)) {
      refused(answer, updated ? `${updated} done, then it stopped` : "Nothing was changed");
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
    return href === null ? [] : [{ href, text: `${kind(item.kind).verb}: ${isolated(item.title)}` }];
  }).slice(0, 5);
  const said = [state === "resolved" ? `${updated} resolved` : `${updated} marked ${state}`];
  if (skipped.length) said.push(`${skipped.length} left open`);
  if (missing) said.push(`${missing} no longer there`);
  const done = ids.filter((id) => !skipped.includes(id));
  page.set({ chosen: new Set(skipped) });
  leave(state === "resolved" ? done : [], next);
  const why = skipped.length ? ". Those wait at their source: " + (links.length < left.length ? "they stay chosen." : "") : ".";
  say(said.join(", ") + why.trimEnd(), { links, undo: state === "resolved" && updated ? () => reopen(done, action) : null });
}

/**
 * @param {readonly string[]} ids
 * @param {Date} [until] a snooze
 */
export async function dismiss(ids, until) {
  if (!ids.length) return;
  const next = after(ids), name = title(ids);
  const body = until && { dismissed_until: until.toISOString() };
  /** @type {string[]} */
  const done = [];
  /** @type {Answer | null} */
  let bad = null;
  for (const id of ids) {
    const send = (/** @type {number | undefined} */ revision) => retryThrottled(() => write("POST", `/org/me/inbox/${encodeURIComponent(id)}/dismiss`, body, revision));
    const answer = await during([id], () => asSeen(find(id), send), true);
    if (ok(answer)) done.push(id);
    else bad = answer;
    if (FINAL.has(answer.status)) break;
  }
  if (bad) refused(bad, ids.length === 1 ? `${name} stays in your list` : `${done.length} of ${ids.length} put away`, find(ids[0]));
  if (!done.length) return;
  leave(done, next);
  if (page.get().away.loaded) fetchAway(page); // it is counted beside the list
  say(until ? `Snoozed ${name} until ${clock(until.toISOString())}.` : `Put away ${name}, for you alone.`, { undo: () => restore(done) });
}

/** @param {readonly string[]} ids */
export async function restore(ids) {
  for (const id of ids) {
    const answer = await during([id], () => write("DELETE", `/org/me/inbox/${encodeURIComponent(id)}/dismiss`), false);
    if (!ok(answer)) return refused(answer, "Not restored", find(id));
  }
  const { mine, away, gone } = page.get();
  page.set({
    mine: without(mine, ids), chosen: new Set(), away: { ...away, items: away.items.filter((item) => !ids.includes(item.id)) },
    gone: new Map([...gone].filter(([id]) => !ids.includes(id))),
  });
  letGo();
  if (page.get().view === "away") await fetchAway(page);
  say(`${ids.length === 1 ? "Back" : `${ids.length} are back`} in your list.`);
}

/**
 * What comes after these on screen: where the keyboard goes when they have gone.
 * @param {readonly string[]} ids
 */
function after(ids) {
  const rows = onScreen(page.get()).shown.filter((row) => !row.gone).map((row) => row.item.id);
  const last = Math.max(...ids.map((id) => rows.indexOf(id)));
  return rows.slice(last + 1).find((id) => !ids.includes(id)) ?? rows.findLast((id) => !ids.includes(id)) ?? null;
}

/**
 * @param {readonly string[]} ids
 * @param {string | null} next
 */
function leave(ids, next) {
  const { active, open } = page.get();
  page.set({
    active: active !== null && ids.includes(active) ? next : active,
    ...(open !== null && ids.includes(open) ? { open: null, opened: null } : {}),
  });
}
