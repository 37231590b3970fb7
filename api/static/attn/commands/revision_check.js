// Fences writes by the revision a person saw (`If-Match`), and repeats throttled ones.
import { pause } from "../backoff.js";
import { stringify } from "../exact.js";
import { waitOf } from "../http.js";
import { page } from "../state/page_state.js";

/** @typedef {import("../types").Item} Item */
/** @typedef {import("../http.js").Answer} Answer */

const MAX_TRIES = 4, MAX_WAIT_MS = 10_000; // after a 429, and milliseconds between two of them

/** What a person saw of an item: while this is the same, a newer revision is none of their concern. @param {Item} item */
const shownFields = ({ title, body_md, priority, plan, risk, reversible, payload, error }) =>
  stringify([title, body_md, priority, plan, risk, reversible, payload, error]);

/**
 * Sends a write for the revision that was shown. On 412 it is sent again if only marks changed; else the page shows the
 * current item.
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

/** Replaces an item that the feed does not follow (opened, beyond the window, put away). @param {Item} item */
export function replaceItem(item) {
  const { inbox, openItem, beyond, dismissed } = page.get();
  if (inbox.items.some((one) => one.id === item.id)) return; // the feed brings it
  const put = (/** @type {Item} */ one) => (one.id === item.id ? item : one);
  page.set({ openItem: openItem && put(openItem), beyond: { ...beyond, items: beyond.items.map(put) }, dismissed: { ...dismissed, items: dismissed.items.map(put) } });
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
