// Feed reducer: applies a snapshot and later frames; the result equals GET /org/me/inbox at the same cursor. Pure: no DOM, no
// clock, no imports. docs/client.md documents it; tests/data/feed-vectors compare it with the server's responses.

/** @typedef {import("./types").Inbox} Inbox */
/** @typedef {import("./types").Item} Item */
/** @typedef {import("./types").Frame} Frame */

/** @type {Inbox} The inbox before the first snapshot. */
export const EMPTY = Object.freeze({
  cursor: null, items: [], counts: { total: 0, unread: 0, by_kind: {}, by_priority: {} }, activity: null, drafts: [],
  preferences: { pinned_clusters: [], widgets: [] },
});

/**
 * Returns the inbox after one frame; the argument is not modified. A frame that is not after the cursor changes nothing, so
 * frames of two overlapping streams (a tab takes over the connection of another) may both be applied.
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
  return next; // a heartbeat, or an event that this client does not know
}

/**
 * Compares two items in list order: by rank as text, then by id. Texts are compared by code unit, not by locale.
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
