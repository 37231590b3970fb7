// The browser's fold: a snapshot and the frames after it -> what GET /org/me/inbox says at that cursor. Pure; no DOM,
// no clock, no imports. docs/client.md explains it; tests/data/feed-vectors holds it to the server's own answers.

/** @typedef {import("./types").Inbox} Inbox */
/** @typedef {import("./types").Item} Item */
/** @typedef {import("./types").Frame} Frame */

/** @type {Inbox} Nothing known yet. */
export const EMPTY = Object.freeze({
  cursor: null, items: [], counts: { total: 0, unread: 0, by_kind: {}, by_priority: {} }, activity: null, drafts: [],
  preferences: { pinned_clusters: [], widgets: [] },
});

/**
 * The inbox after one frame; the one given is left as it is. A frame that was applied before changes nothing, so two
 * streams that overlap (a tab takes over from another) may both be folded in.
 * @param {Inbox} inbox
 * @param {Frame} frame
 * @returns {Inbox}
 */
export function apply(inbox, { id, event, data }) {
  if (event === "snapshot") {
    const { items, counts, activity, drafts, preferences } = data;
    return { cursor: id ?? String(data.cursor), items: [...items].sort(before), counts, activity, drafts, preferences };
  }
  if (id === undefined || inbox.cursor === null || Number(id) <= Number(inbox.cursor)) return inbox;
  const next = { ...inbox, cursor: id };
  if (event === "added" || event === "changed") return { ...next, items: put(inbox.items, data.item), counts: data.counts };
  if (event === "removed") return { ...next, items: drop(inbox.items, data.id), counts: data.counts };
  if (event === "activity" || event === "drafts" || event === "preferences") return { ...next, [event]: data };
  return next; // a heartbeat, or something newer than this client
}

/**
 * The order of the list: by rank as text, equal ones by id. Compared by code unit, never by locale.
 * @param {Pick<Item, "rank" | "id">} a
 * @param {Pick<Item, "rank" | "id">} b
 */
export function before(a, b) {
  if (a.rank !== b.rank) return a.rank < b.rank ? -1 : 1;
  return a.id < b.id ? -1 : a.id > b.id ? 1 : 0;
}

/**
 * @param {readonly Item[]} items in order
 * @param {Item} item
 */
function put(items, item) {
  const rest = items.filter((one) => one.id !== item.id);
  let low = 0;
  for (let high = rest.length; low < high;) {
    const middle = (low + high) >> 1;
    if (before(rest[middle], item) < 0) low = middle + 1;
    else high = middle;
  }
  rest.splice(low, 0, item);
  return rest;
}

/**
 * @param {readonly Item[]} items
 * @param {string} id
 */
function drop(items, id) {
  return items.some((one) => one.id === id) ? items.filter((one) => one.id !== id) : items;
}
