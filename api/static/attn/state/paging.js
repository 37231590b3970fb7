// Fetches what the live window does not contain: items beyond it, and dismissed items. These pages are not updated by the feed.
import { pause } from "../backoff.js";
import { extend } from "./list_freeze.js";
import { request, ok, waitOf } from "../http.js";

/** @typedef {import("../types").Item} Item */
/** @typedef {import("./store.js").Store} Store */
/** @typedef {import("./store.js").Pages} Pages */

const PAGE = 500, MOST = 40; // items per page, and pages of one list: at most 20,000 items
const REST = 15_000; // milliseconds between two fetches of a list that changes while it is on screen
let lastFetch = -REST; // milliseconds, of `performance.now()`
/** Failed requests in a row, and the time of the next allowed one: the list requests a page at every render. */
let failures = 0, notBefore = 0;

const mayFetch = () => performance.now() >= notBefore;

/**
 * Fetches one page; null if the request failed.
 * @param {string} query
 * @param {string | null} next
 * @returns {Promise<{items: Item[], next: string | null} | null>}
 */
async function fetchPage(query, next) {
  const answer = await request("GET", `/org/me/inbox?limit=${PAGE}${query}${next ? `&next=${encodeURIComponent(next)}` : ""}`);
  if (ok(answer)) {
    failures = notBefore = 0;
    return { items: answer.data.items, next: answer.data.next ?? null };
  }
  notBefore = performance.now() + pause(++failures, waitOf(answer));
  return null;
}

/**
 * Fetches the next page of the open list; fetches all pages again if the list has changed. Pages start at the top of the list,
 * so items that leave the live window are still known.
 * @param {Store} page
 */
export async function fetchBeyond(page) {
  const { beyond, inbox } = page.get();
  if (beyond.loading || !mayFetch() || inbox.counts.total <= inbox.items.length) return;
  if (beyond.loaded && !beyond.stale && beyond.next === null) return;
  if (beyond.stale && performance.now() - lastFetch < REST) return;
  page.set({ beyond: { ...beyond, loading: true, stale: false } });
  const anew = !beyond.loaded || beyond.stale;
  let items = anew ? [] : [...beyond.items], next = anew ? null : beyond.next;
  const wanted = anew ? Math.max(beyond.items.length, inbox.items.length + 1) : beyond.items.length + 1;
  do {
    const found = await fetchPage("", next);
    if (found === null) return page.set({ beyond: { ...page.get().beyond, loading: false } });
    items = items.concat(found.items);
    next = found.next;
  } while (next !== null && items.length < wanted);
  lastFetch = performance.now();
  const now = page.get();
  page.set({
    beyond: { items, next, loading: false, loaded: true, stale: now.beyond.stale }, frozen: now.frozen && extend(now.frozen, withoutLive(now.inbox.items, items)),
  });
}

/**
 * Returns the items that are not in the live window.
 * @param {readonly Item[]} live
 * @param {Item[]} items
 */
function withoutLive(live, items) {
  const ids = new Set(live.map((item) => item.id));
  return items.filter((item) => !ids.has(item.id));
}

/**
 * Fetches the whole list, for a filter or a search.
 * @param {Store} page
 */
export async function fetchAll(page) {
  for (let round = 0; round < MOST; round++) {
    const before = page.get().beyond;
    await fetchBeyond(page);
    const { beyond } = page.get();
    if (beyond === before || !mayFetch() || (beyond.loaded && beyond.next === null)) return;
  }
}

/**
 * Fetches the first page of the dismissed items.
 * @param {Store} page
 */
export async function fetchDismissed(page) {
  page.set({ dismissed: { ...page.get().dismissed, loading: true } });
  const found = await fetchPage("&dismissed=true", null);
  const { dismissed } = page.get();
  page.set({ dismissed: found === null ? { ...dismissed, loading: false } : { ...found, loading: false, loaded: true, stale: false } });
}

/** Fetches the next page of the dismissed items. @param {Store} page */
export async function fetchMoreDismissed(page) {
  const { dismissed } = page.get();
  if (dismissed.loading || !mayFetch() || dismissed.next === null) return;
  page.set({ dismissed: { ...dismissed, loading: true } });
  const found = await fetchPage("&dismissed=true", dismissed.next);
  const now = page.get().dismissed;
  page.set({ dismissed: found === null ? { ...now, loading: false } : { ...now, items: [...now.items, ...found.items], next: found.next, loading: false } });
}
