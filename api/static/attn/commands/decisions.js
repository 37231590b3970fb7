// Commands on questions: decide, take back, decide many. The fold decides, so the page shows what the edge answers and not what was
// sent.
import { nextOnScreen, findItem, showToast } from "./item_commands.js";
import { retryThrottled } from "./revision_check.js";
import { explainAnswer, secondsToUndo, sentence } from "../answer/outcome.js";
import { optionDone } from "../answer/option_keys.js";
import { questionId } from "../answer/input_guard.js";
import { sourceName } from "../answer/question.js";
import { now } from "../clock.js";
import { stringify } from "../exact.js";
import { newIdempotencyKey, ok, request, sendWrite } from "../http.js";
import { page, unfreezeList, without } from "../state/page_state.js";
import { isolate, plural } from "../text/labels.js";

/** @typedef {import("../types").Item} Item */
/** @typedef {import("../types").Option} Option */
/** @typedef {import("../http.js").Answer} Answer */
/** @typedef {{option: string, form?: Record<string, any>, args?: Record<string, any>, comment?: string, digest: string}} Reply */

const UNCONFIRMED = new Set([0, 503]); // statuses after which nobody knows whether the write took effect
const READS = 5; // items that are read at once: an edge answers 8 reads of one user at a time
const SERIES_ENDS = new Set([0, 401, 429]);

/** Writes without a definite answer, by what they say: they are repeated with the same key and the same bytes. @type {Map<string, {key: string, body: object}>} */
const unconfirmed = new Map();

/** @param {string} id */
const pathOf = (id) => `/api/v1/inbox/${encodeURIComponent(id)}/decision`;

/**
 * Sends a write. After a lost response the same write has the same Idempotency-Key, also if the user sends it again.
 * @param {string} path
 * @param {object} content what is sent; identifies the write
 * @param {object} [more] measured values, which do not
 */
async function sendOnce(path, content, more) {
  const what = `${path} ${stringify(content)}`;
  const write = unconfirmed.get(what) ?? { key: newIdempotencyKey(), body: { ...content, ...more } };
  unconfirmed.set(what, write);
  const answer = await retryThrottled(() => sendWrite("POST", path, write.body, undefined, write.key));
  if (!UNCONFIRMED.has(answer.status)) unconfirmed.delete(what);
  return answer;
}

/**
 * Changes the open item, if it is this one and still asks the same. A revision beyond that of the feed keeps the change.
 * @param {Item} item as it was when the user answered
 * @param {Partial<Item>} changes
 */
function changeOpen(item, changes) {
  const { openItem } = page.get();
  if (openItem?.id === item.id) page.set({ openItem: { ...openItem, ...changes } });
}

/** Fetches an item that has left the feed, or may be ahead of it, and shows it if it is open. @param {string} id */
export async function refreshOpen(id) {
  const answer = await request("GET", `/org/me/inbox/${encodeURIComponent(id)}`);
  const { openItem } = page.get();
  if (openItem?.id !== id) return answer;
  if (ok(answer) && answer.data.revision >= openItem.revision) page.set({ openItem: answer.data });
  return answer;
}

/**
 * Sends the answer to a question, and shows what the edge made of it.
 * @param {Item} item as it was shown
 * @param {Reply} reply
 * @param {number} viewed seconds for which the page had shown the question
 * @returns {Promise<Answer>}
 */
export async function decide(item, reply, viewed) {
  page.set({ pending: new Set([...page.get().pending, item.id]) });
  const answer = await sendOnce(pathOf(item.id), reply, { viewed: Math.round(viewed * 10) / 10 });
  page.set({ pending: without(page.get().pending, [item.id]) });
  const { status, data } = answer;
  if (ok(answer) && data?.decision) showDecided(item, data.decision);
  else if (ok(answer)) showVote(item, reply, data ?? {});
  else if (status === 412 && data?.item) changeOpen(item, data.item);
  else if ((status === 409 || status === 410) && data?.decision) {
    changeOpen(item, { state: data.decision.state === "expired" || data.decision.state === "applied" ? "resolved" : "decided", decision: data.decision });
  }
  if (!ok(answer) && status !== 422) {
    const { openItem, me } = page.get(), text = explainAnswer(answer, item, me, now());
    // The open question shows the reason itself.
    if (openItem?.id === item.id) page.set({ announcement: text });
    else showToast(`${isolate(item.title)}: ${text}`, { tone: "bad" });
  }
  if (UNCONFIRMED.has(status) || (status >= 403 && status <= 412)) refreshOpen(item.id);
  return answer;
}

/** @param {Item} item @param {import("../types").Decision} decision */
function showDecided(item, decision) {
  changeOpen(item, { state: "decided", decision });
  const { ownRemovals, selected } = page.get();
  page.set({ ownRemovals: new Set([...ownRemovals, item.id]), selected: without(selected, [item.id]) });
  const done = sentence(`${optionDone(decision.option ?? "", decision.does, item.ask?.options ?? [])}: ${isolate(item.title)}`);
  const left = secondsToUndo(decision, now());
  showToast(left ? done : `${done} It goes to ${sourceName(item)}.`, left ? { undo: () => takeBack([item.id]), until: Date.parse(decision.undo_until) } : {});
}

/** @param {Item} item @param {Reply} reply @param {{votes?: Item["votes"], needed?: number}} vote */
function showVote(item, reply, { votes, needed }) {
  changeOpen(item, { ...(votes && { votes }), ...(needed !== undefined && { needed }) });
  const done = optionDone(reply.option, undefined, item.ask?.options ?? []);
  showToast(`Your vote counts: ${done}. ${needed ? `${plural(needed, "more vote")} needed.` : ""}`.trim());
}

/**
 * Takes decisions back.
 * @param {readonly string[]} ids
 */
export async function takeBack(ids) {
  /** @type {string[]} */
  const opened = [];
  /** @type {Answer | null} */
  let bad = null;
  for (const id of ids) {
    const answer = await sendWrite("DELETE", pathOf(id));
    if (ok(answer)) opened.push(id);
    else bad = answer;
    if (SERIES_ENDS.has(answer.status)) break;
  }
  const { ownRemovals, openItem } = page.get();
  page.set({ ownRemovals: without(ownRemovals, opened) });
  unfreezeList(); // items that this user restores are shown at once
  if (openItem && ids.includes(openItem.id)) await refreshOpen(openItem.id);
  if (!bad) return showToast(opened.length === 1 ? "Taken back. The question is open again." : `${plural(opened.length, "answer")} taken back.`);
  const why = bad.status === 409 ? "it is already on its way" : explainAnswer(bad, findItem(ids[0]) ?? /** @type {any} */ ({}), page.get().me, now());
  showToast(ids.length === 1 ? `Not taken back: ${why}` : `${opened.length} of ${ids.length} taken back: ${why}`, { tone: "bad" });
}

/**
 * Fetches what was sent with a decision, form and arguments included; null if it is not among the newest.
 * @param {import("../types").Decision} decision
 * @returns {Promise<import("../types").DecisionRow | null>}
 */
export async function fetchDecision({ id, state }) {
  const answer = await request("GET", `/org/me/decisions?limit=200&state=${encodeURIComponent(state)}`);
  const rows = ok(answer) ? /** @type {import("../types").DecisionRow[]} */ (answer.data.decisions) : [];
  return rows.find((row) => row.id === id) ?? null;
}

/** @typedef {{id: string, title: string, result: string, tone: "good" | "bad"}} BulkResult */

/**
 * Gives the same answer to several questions. Each is decided only if it is still as it was shown.
 * @param {readonly Item[]} items as they were shown
 * @param {Option} option
 * @param {string} comment
 * @returns {Promise<{results: BulkResult[], problem: string}>}
 */
export async function decideMany(items, option, comment) {
  const ids = items.map((item) => item.id);
  page.set({ pending: new Set([...page.get().pending, ...ids]) });
  const answer = await sendOnce("/api/v1/inbox/decisions", {
    ids, option: option.id, revisions: Object.fromEntries(items.map((item) => [item.id, item.revision])), ...(comment && { comment }),
  });
  page.set({ pending: without(page.get().pending, ids) });
  if (!ok(answer)) return { results: [], problem: explainAnswer(answer, items[0], page.get().me, now()) };
  // The breakdown names what was left out; what became of the others is on the items themselves.
  const skipped = new Set(answer.data.skipped_ids ?? []), changed = new Set(answer.data.changed_ids ?? []);
  /** @type {Answer[]} */
  const current = [];
  for (let at = 0; at < ids.length; at += READS) {
    current.push(...await Promise.all(ids.slice(at, at + READS).map((id) => request("GET", `/org/me/inbox/${encodeURIComponent(id)}`))));
  }
  const results = items.map((item, place) => bulkResult(item, option, current[place], skipped, changed));
  const done = results.filter((one) => one.tone === "good").map((one) => one.id);
  const decided = done.filter((id) => current[ids.indexOf(id)].data?.decision?.state === "made");
  const until = Math.min(...decided.map((id) => Date.parse(current[ids.indexOf(id)].data.decision.undo_until)));
  const { ownRemovals, selected } = page.get();
  page.set({ ownRemovals: new Set([...ownRemovals, ...decided]), selected: without(selected, done) });
  const text = `${sentence(optionDone(option.id, option.does, item0(items)))} ${done.length} of ${items.length}.`;
  showToast(text, decided.length && until > now() ? { undo: () => takeBack(decided), until } : {});
  return { results, problem: "" };
}

/** @param {readonly Item[]} items */
const item0 = (items) => items[0]?.ask?.options ?? [];

/**
 * @param {Item} item @param {Option} option @param {Answer} current @param {ReadonlySet<string>} skipped @param {ReadonlySet<string>} changed
 * @returns {BulkResult}
 */
function bulkResult(item, option, current, skipped, changed) {
  const { id, title } = item;
  if (!ok(current)) return { id, title, tone: "bad", result: "not there any more, or not addressed to you" };
  if (changed.has(id) || current.data.digest !== item.digest) return { id, title, tone: "bad", result: "not answered: it has changed since it was shown" };
  if (skipped.has(id)) return { id, title, tone: "bad", result: "not answered: it is decided, closed, or not yours to decide" };
  if (current.data.decision && current.data.state === "decided") return { id, title, tone: "good", result: optionDone(option.id, option.does, item.ask?.options ?? []) };
  return { id, title, tone: "good", result: current.data.needed ? `your vote counts, ${plural(current.data.needed, "more vote")} needed` : "your vote counts" };
}

/** Opens the next question on screen that asks, after this item. @param {string} id */
export function openNextQuestion(id) {
  const next = nextOnScreen([id]), item = next === null ? undefined : findItem(next);
  if (!item) return showToast("No other item is in the list.");
  page.set({ openId: item.id, openItem: item, activeId: item.id });
}

/** @type {string | null} question that is polled */
let polled = null;
let timer = 0, rounds = 0;
const FIRST_POLL_MS = 700, LONGEST_POLL_MS = 10_000;

/** Keeps an open item current that is decided: it has left the feed. */
export function watchDecided() {
  page.listen(({ openItem, phase }) => {
    const wanted = phase === "in" && openItem !== null && openItem.state === "decided" ? questionId(openItem) : null;
    if (wanted === polled) return;
    polled = wanted;
    clearTimeout(timer);
    rounds = 0;
    // Another person's decision: the frame names neither the person nor the answer.
    if (wanted !== null) poll(openItem?.decision ? FIRST_POLL_MS : 0);
  });
}

/** @param {number} wait milliseconds */
function poll(wait) {
  const mine = polled;
  timer = setTimeout(async () => {
    const { openItem } = page.get();
    if (!openItem || mine !== polled) return;
    if (!document.hidden) await refreshOpen(openItem.id);
    if (mine === polled) poll(Math.min(LONGEST_POLL_MS, FIRST_POLL_MS * 1.4 ** ++rounds));
  }, wait);
}
