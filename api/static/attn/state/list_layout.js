// Virtual list: positions of the rows, the visible rows, and range selection. Pure.

/** @typedef {import("../types").Item} Item */
/** @typedef {import("../types").Priority} Priority */
/** @typedef {import("./list_freeze.js").ListedItem} ListedItem */
/**
 * @typedef {object} Row
 * @property {string} key
 * @property {number} top pixels
 * @property {number} height
 * @property {{name: Priority, count: number, more: boolean} | null} band heading of a band; null for an item
 * @property {ListedItem | null} shown
 * @property {number} place index of the item, from 0; -1 for a heading
 */

/** @type {readonly Priority[]} */
export const BANDS = ["urgent", "high", "normal", "low"];
export const HEADING = 36;

/**
 * Returns the rows with their positions, with a heading at the start of each band. A removed item stays in its band.
 * @param {readonly ListedItem[]} list
 * @param {number} height of an item, pixels
 * @param {boolean} more whether the list has more items than these
 * @param {boolean} banded whether the list has headings
 * @returns {{rows: Row[], height: number}}
 */
export function layOutRows(list, height, more, banded) {
  /** @type {Row[]} */
  const rows = [];
  /** @type {Row["band"]} */
  let band = null;
  let top = 0, highest = -1;
  list.forEach((shown, place) => {
    // In a frozen list an item may have changed its band. Headings follow the order on screen, each at most once.
    const at = Math.max(highest, BANDS.indexOf(shown.item.band));
    if (banded && at !== highest) {
      band = { name: BANDS[at], count: 0, more: false };
      rows.push({ key: `band:${band.name}`, top, height: HEADING, band, shown: null, place: -1 });
      top += HEADING;
      highest = at;
    }
    if (band && !shown.gone) band.count += 1;
    rows.push({ key: shown.item.id, top, height, band: null, shown, place });
    top += height;
  });
  if (band && more) /** @type {{more: boolean}} */ (band).more = true; // the last band may continue
  return { rows, height: top };
}

/**
 * Returns the rows that overlap a vertical range, and the focused row wherever it is.
 * @param {readonly Row[]} rows
 * @param {number} from pixels
 * @param {number} to pixels
 * @param {string | null} keep key of the focused row
 * @returns {Row[]}
 */
export function visibleRows(rows, from, to, keep) {
  const first = firstAfter(rows, from);
  let last = first;
  while (last < rows.length && rows[last].top < to) last += 1;
  const found = rows.slice(first, last);
  const kept = keep === null ? -1 : rows.findIndex((row) => row.key === keep);
  if (kept >= 0 && kept < first) found.unshift(rows[kept]);
  else if (kept >= last) found.push(rows[kept]);
  return found;
}

/**
 * Returns the index of the first row that ends after `from` (binary search).
 * @param {readonly Row[]} rows
 * @param {number} from
 */
function firstAfter(rows, from) {
  let low = 0;
  for (let high = rows.length; low < high;) {
    const middle = (low + high) >> 1;
    if (rows[middle].top + rows[middle].height <= from) low = middle + 1;
    else high = middle;
  }
  return low;
}

/**
 * Returns the selection after a click on an item. With `range` all items from the anchor to this one are selected.
 * @param {ReadonlySet<string>} selected
 * @param {readonly string[]} order
 * @param {string | null} anchor
 * @param {string} id
 * @param {boolean} range
 * @returns {Set<string>}
 */
export function select(selected, order, anchor, id, range) {
  const next = new Set(selected);
  const from = anchor === null ? -1 : order.indexOf(anchor), to = order.indexOf(id);
  if (!range || from < 0 || to < 0) {
    if (!next.delete(id)) next.add(id);
    return next;
  }
  for (const one of order.slice(Math.min(from, to), Math.max(from, to) + 1)) next.add(one);
  return next;
}
