// Sends writes with the revision that the user saw (`If-Match`), and repeats rate-limited ones.
import { pause } from "../backoff.js";
import { stringify } from "../exact.js";
import { waitOf } from "../http.js";
import { page } from "../state/page_state.js";

/** @typedef {import("../types").Item} Item */
/** @typedef {import("../http.js").Answer} Answer */

const MAX_TRIES = 4, MAX_WAIT_MS = 10_000; // requests per write after 429, and milliseconds between two

/** Returns the fields that matter for a decision: if they are unchanged, the user need not review a newer revision. @param {Item} item */
const shownFields = ({ title, body_md, priority, plan, risk, reversible, payload, error }) =>
  stringify([title, body_md, priority, plan, risk, reversible, payload, error]);

/**
 * Sends a write with the revision that was shown. After 412 it is sent again with the current revision if the content of the item
 * is unchanged; else the page shows the current item.
 * @param {Item | undefined} item
 * @param {(revision: number | undefined) => Promise<Answer>} send
 */
export async function withRevision(item, send) {
  const answer = await send(item?.revision);
  if (answer.status !== 412 || !item || !answer.data?.item) return answer;
  const newest = { ...item, ...answer.data.item };
  if (newest.state !== "resolved" && shownFields(newest) === shownFields(item)) return send(newest.revision);
  replaceItem(newest);
  return answer;
}

/** Replaces an item that the feed does not update (opened, beyond the window, dismissed). @param {Item} item */
export function replaceItem(item) {
  const { inbox, openItem, beyond, dismissed } = page.get();
  if (inbox.items.some((one) => one.id === item.id)) return; // the feed updates it
  const replaced = (/** @type {Item} */ one) => (one.id === item.id ? item : one);
  page.set({ openItem: openItem && replaced(openItem), beyond: { ...beyond, items: beyond.items.map(replaced) }, dismissed: { ...dismissed, items: dismissed.items.map(replaced) } });
}

/**
 * Repeats a request that got 429, at most TRIES times.
 * @param {() => Promise<Answer>} send
 */
export async function retryThrottled(send) {
  for (let tries = 1; ; tries++) {
    const answer = await send();
    if (answer.status !== 429 || tries === MAX_TRIES) return answer;
    await new Promise((done) => setTimeout(done, Math.min(pause(tries, waitOf(answer)), MAX_WAIT_MS)));
  }
}
