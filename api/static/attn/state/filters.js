// What of the list a person wants to see. Pure.

/** @typedef {import("../types").Item} Item */
/** @typedef {{kind: string, cluster: string, case: string, text: string}} Filters */

/** @type {Filters} */
export const NO_FILTERS = { kind: "", cluster: "", case: "", text: "" };

/** @param {Filters} filters */
export const isActive = (filters) => Boolean(filters.kind || filters.cluster || filters.case || filters.text.trim());

/**
 * @param {Item} item
 * @returns {string[]}
 */
export const clustersOf = (item) => item.clusters ?? (item.cluster ? [item.cluster] : []);

/**
 * Every word must be somewhere in the item.
 * @param {readonly Item[]} items
 * @param {Filters} filters
 * @param {boolean} unread only those
 */
export function matching(items, filters, unread) {
  const words = filters.text.toLowerCase().split(/\s+/).filter(Boolean);
  if (!unread && !isActive(filters)) return items;
  return items.filter((item) => (!unread || item.state === "unread")
    && (!filters.kind || item.kind === filters.kind)
    && (!filters.cluster || clustersOf(item).includes(filters.cluster))
    && (!filters.case || item.case_id === filters.case)
    && (!words.length || containsAll(item, words)));
}

/**
 * @param {Item} item
 * @param {string[]} words lower case
 */
function containsAll(item, words) {
  const text = [
    item.title, item.body_md, item.kind, item.cluster, item.stack, item.sender_name, item.case_id, item.case_title, item.source_id,
    item.pipeline, item.step, item.error, ...(item.clusters ?? []),
  ].join("\n").toLowerCase();
  return words.every((word) => text.includes(word));
}

/**
 * How many of the items are of each cluster, pinned ones first, then by name.
 * @param {readonly Item[]} items
 * @param {readonly string[]} pinned
 * @returns {{name: string, count: number, pinned: boolean}[]}
 */
export function clusters(items, pinned) {
  /** @type {Map<string, number>} */
  const found = new Map(pinned.map((name) => [name, 0]));
  for (const item of items) for (const name of clustersOf(item)) found.set(name, (found.get(name) ?? 0) + 1);
  const place = (/** @type {string} */ name) => (pinned.includes(name) ? pinned.indexOf(name) : pinned.length);
  return [...found].map(([name, count]) => ({ name, count, pinned: pinned.includes(name) }))
    .sort((a, b) => place(a.name) - place(b.name) || (a.name < b.name ? -1 : 1));
}
