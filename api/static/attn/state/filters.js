// Filters of the list: kind, cluster, case, text. Pure.

/** @typedef {import("../types").Item} Item */
/** @typedef {{kind: string, cluster: string, case: string, text: string}} Filters */

/** @type {Filters} */
export const NO_FILTERS = { kind: "", cluster: "", case: "", text: "" };

/** @param {Filters} filters */
export const isActive = (filters) => Boolean(filters.kind || filters.cluster || filters.case || filters.text.trim());

/**
 * Returns the clusters of an item; an incident may have several.
 * @param {Item} item
 * @returns {string[]}
 */
export const clustersOf = (item) => item.clusters ?? (item.cluster ? [item.cluster] : []);

/**
 * Returns the items that match all filters. Each word of the text must occur in the item.
 * @param {readonly Item[]} items
 * @param {Filters} filters
 * @param {boolean} unread whether only unread items match
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
 * Whether each word occurs in a text field of the item.
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
 * Returns the number of items per cluster: pinned clusters first, then by name.
 * @param {readonly Item[]} items
 * @param {readonly string[]} pinned
 * @returns {{name: string, count: number, pinned: boolean}[]}
 */
export function clusters(items, pinned) {
  /** @type {Map<string, number>} */
  const counts = new Map(pinned.map((name) => [name, 0]));
  for (const item of items) for (const name of clustersOf(item)) counts.set(name, (counts.get(name) ?? 0) + 1);
  const pinIndex = (/** @type {string} */ name) => (pinned.includes(name) ? pinned.indexOf(name) : pinned.length);
  return [...counts].map(([name, count]) => ({ name, count, pinned: pinned.includes(name) }))
    .sort((a, b) => pinIndex(a.name) - pinIndex(b.name) || (a.name < b.name ? -1 : 1));
}
