// What a person does to items. Each write is answered after it is durable; the feed then shows it, here and everywhere.
import { explain, ok, write } from "./http.js";
import { letGo, onScreen, page, without } from "./model.js";
import { fetchAway } from "./pages.js";
import { clock, kind, plural } from "./words.js";

/** @typedef {import("./types").Item} Item */
/** @typedef {import("./http.js").Answer} Answer */

const MOST = 500; // ids in one request
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

/** A title within a sentence: signs that turn the direction of text are not to turn the rest of it. @param {readonly string[]} ids */
const title = (ids) => (ids.length === 1 ? `“${(find(ids[0])?.title ?? "Item").replace(/[\u202A-\u202E\u2066-\u2069]/g, "")}”` : plural(ids.length, "item"));

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

/** What a person saw of an item: while this is the same, a newer revision is none of their concern. @param {Item} item */
const seen = ({ title, body_md, priority, plan, risk, reversible, payload, error }) =>
  JSON.stringify([title, body_md, priority, plan, risk, reversible, payload, error]);

/**
 * A write meant for what was seen. If only marks have changed since, it is sent again for the newer revision.
 * @param {Item | undefined} item
 * @param {(revision: number | undefined) => Promise<Answer>} send
 */
async function asSeen(item, send) {
  const answer = await send(item?.revision);
  if (answer.status !== 412 || !item || !answer.data?.item || answer.data.item.state === "resolved") return answer;
  return seen({ ...item, ...answer.data.item }) === seen(item) ? send(answer.data.item.revision) : answer;
}

/**
 * @param {Answer} answer
 * @param {string} what
 * @param {Item} [item]
 */
function refused(answer, what, item) {
  const links = item?.action_url ? [{ href: item.action_url, text: kind(item.kind).verb }] : [];
  say(`${what}: ${explain(answer)}`, { tone: "bad", links: answer.status === 409 ? links : [] });
}

/**
 * @param {readonly string[]} ids
 * @param {"read" | "unread"} state
 * @param {boolean} [quietly]
 */
export async function mark(ids, state, quietly = false) {
  if (!ids.length) return;
  if (ids.length > 1) return bulk(ids, state);
  const answer = await during(ids, () => write("PATCH", `/api/v1/inbox/${encodeURIComponent(ids[0])}`, { state }), false);
  if (ok(answer)) marked(ids[0], state);
  else if (!quietly) refused(answer, `Not marked ${state}`, find(ids[0]));
}

/** What the feed does not follow has the mark from here. @param {string} id @param {"read" | "unread"} state */
function marked(id, state) {
  const { inbox, opened, tail, away } = page.get();
  if (inbox.items.some((item) => item.id === id)) return;
  const set = (/** @type {Item} */ item) => (item.id === id ? { ...item, state } : item);
  page.set({ opened: opened && set(opened), tail: { ...tail, items: tail.items.map(set) }, away: { ...away, items: away.items.map(set) } });
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
  say(`Resolved ${name} for everyone.`, { undo: () => reopen([id]) });
}

/** @param {readonly string[]} ids */
async function reopen(ids) {
  const answer = await write("POST", "/api/v1/inbox/bulk", { ids, state: "unread" });
  if (!ok(answer)) return refused(answer, "Not opened again");
  page.set({ mine: without(page.get().mine, ids) });
  letGo(); // what this person brings back does not wait behind the pill
  say(answer.data.skipped ? `${answer.data.updated} opened again, ${answer.data.skipped} are their source's.` : "Open again.");
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
  const links = left.filter((item) => item.action_url).slice(0, 5).map((item) => ({ href: /** @type {string} */ (item.action_url), text: `${kind(item.kind).verb}: ${item.title}` }));
  const said = [state === "resolved" ? `${updated} resolved` : `${updated} marked ${state}`];
  if (skipped.length) said.push(`${skipped.length} left open`);
  if (missing) said.push(`${missing} no longer there`);
  const done = ids.filter((id) => !skipped.includes(id));
  page.set({ chosen: new Set(skipped) });
  leave(state === "resolved" ? done : [], next);
  const why = skipped.length ? ". Those wait at their source: " + (links.length < left.length ? "they stay chosen." : "") : ".";
  say(said.join(", ") + why.trimEnd(), { links, undo: state === "resolved" && updated ? () => reopen(done) : null });
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
    const send = (/** @type {number | undefined} */ revision) => write("POST", `/org/me/inbox/${encodeURIComponent(id)}/dismiss`, body, revision);
    const answer = await during([id], () => asSeen(ids.length === 1 ? find(id) : undefined, send), true);
    if (ok(answer)) done.push(id);
    else bad = answer;
    if (answer.status === 0 || answer.status === 401 || answer.status === 429) break;
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
