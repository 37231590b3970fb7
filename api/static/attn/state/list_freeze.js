// Nothing moves under a pointer: the order on screen, while it is held, and what waits behind the pill. Pure.

/** @typedef {import("../types").Item} Item */
/**
 * @typedef {object} FrozenList
 * @property {readonly string[]} order ids as they were when the list was taken hold of
 * @property {ReadonlyMap<string, Item>} was what they were, to show what has gone
 */
/** @typedef {{item: Item, gone: boolean}} ListedItem */

/**
 * @param {readonly Item[]} items
 * @returns {FrozenList}
 */
export const freeze = (items) => ({ order: items.map((item) => item.id), was: new Map(items.map((item) => [item.id, item])) });

/**
 * The list to show. Held: the old order with the new content; what has gone stays in its place as such, unless it was
 * this person who made it go (`mine`); what is new, or would move, waits.
 * @param {readonly Item[]} items in rank order, as they are now
 * @param {FrozenList | null} held
 * @param {ReadonlySet<string>} mine
 * @returns {{shown: ListedItem[], fresh: number, moved: boolean}} `fresh`: how many wait; `moved`: whether the order is another
 */
export function arrange(items, held, mine) {
  if (held === null) return { shown: items.map((item) => ({ item, gone: false })), fresh: 0, moved: false };
  const now = new Map(items.map((item) => [item.id, item]));
  /** @type {ListedItem[]} */
  const shown = [];
  for (const id of held.order) {
    const item = now.get(id) ?? (mine.has(id) ? undefined : held.was.get(id));
    if (item) shown.push({ item, gone: !now.has(id) });
  }
  if (!shown.length) return arrange(items, null, mine); // nothing is there that could move
  const order = shown.filter((row) => !row.gone).map((row) => row.item.id);
  const known = new Set(held.order);
  const kept = items.filter((item) => known.has(item.id));
  return {
    shown, fresh: items.length - kept.length,
    moved: order.length !== shown.length || kept.some((item, place) => item.id !== order[place]),
  };
}

/**
 * The order held so far, with more at its end: pages that were fetched by scrolling.
 * @param {FrozenList} held
 * @param {readonly Item[]} more
 * @returns {FrozenList}
 */
export function extend(held, more) {
  const added = more.filter((item) => !held.was.has(item.id));
  if (!added.length) return held;
  return { order: [...held.order, ...added.map((item) => item.id)], was: new Map([...held.was, ...added.map((item) => /** @type {const} */ ([item.id, item]))]) };
}
