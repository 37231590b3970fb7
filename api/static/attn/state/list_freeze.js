// Freezes the order of the list while the user interacts with it, so no row moves under the pointer. Pure.

/** @typedef {import("../types").Item} Item */
/**
 * @typedef {object} FrozenList
 * @property {readonly string[]} order ids in the order at the time of freezing
 * @property {ReadonlyMap<string, Item>} was items at the time of freezing, to show removed ones
 */
/** @typedef {{item: Item, gone: boolean}} ListedItem */

/**
 * @param {readonly Item[]} items
 * @returns {FrozenList}
 */
export const freeze = (items) => ({ order: items.map((item) => item.id), was: new Map(items.map((item) => [item.id, item])) });

/**
 * Returns the rows to show. A frozen list keeps its order and shows the current content. Removed items keep their row and are
 * marked `gone`, except those that this user removed (`own`). New items and new positions are pending.
 * @param {readonly Item[]} items in rank order, as they are now
 * @param {FrozenList | null} frozen
 * @param {ReadonlySet<string>} own
 * @returns {{shown: ListedItem[], fresh: number, moved: boolean}} `fresh`: number of pending new items; `moved`: whether the current order differs
 */
export function arrange(items, frozen, own) {
  if (frozen === null) return { shown: items.map((item) => ({ item, gone: false })), fresh: 0, moved: false };
  const now = new Map(items.map((item) => [item.id, item]));
  /** @type {ListedItem[]} */
  const shown = [];
  for (const id of frozen.order) {
    const item = now.get(id) ?? (own.has(id) ? undefined : frozen.was.get(id));
    if (item) shown.push({ item, gone: !now.has(id) });
  }
  if (!shown.length) return arrange(items, null, own); // no row is left that could move
  const order = shown.filter((row) => !row.gone).map((row) => row.item.id);
  const known = new Set(frozen.order);
  const kept = items.filter((item) => known.has(item.id));
  return {
    shown, fresh: items.length - kept.length,
    moved: order.length !== shown.length || kept.some((item, place) => item.id !== order[place]),
  };
}

/**
 * Returns the frozen list with more items at its end: pages that were fetched by scrolling.
 * @param {FrozenList} frozen
 * @param {readonly Item[]} more
 * @returns {FrozenList}
 */
export function extend(frozen, more) {
  const added = more.filter((item) => !frozen.was.has(item.id));
  if (!added.length) return frozen;
  return { order: [...frozen.order, ...added.map((item) => item.id)], was: new Map([...frozen.was, ...added.map((item) => /** @type {const} */ ([item.id, item]))]) };
}
