// Rows of the list and which of them are on screen. Pure.

/** @typedef {import("../types").Item} Item */
/** @typedef {import("../types").Priority} Priority */
/** @typedef {import("./list_freeze.js").ListedItem} Shown */
/**
 * @typedef {object} Row
 * @property {string} key
 * @property {number} top pixels
 * @property {number} height
 * @property {{name: Priority, count: number, more: boolean} | null} band a heading, or else:
 * @property {Shown | null} shown
 * @property {number} place of an item, from 0
 */

/** @type {readonly Priority[]} */
export const BANDS = ["urgent", "high", "normal", "low"];
export const HEADING = 36;

/**
 * The list as rows with their places: a heading where a band begins. An item that has gone stays in its band.
 * @param {readonly Shown[]} list
 * @param {number} height of an item, pixels
 * @param {boolean} more whether the list goes on beyond what is here
 * @param {boolean} banded
 * @returns {{rows: Row[], height: number}}
 */
export function layOutRows(list, height, more, banded) {
  /** @type {Row[]} */
  const rows = [];
  /** @type {Row["band"]} */
  let band = null;
  let top = 0, highest = -1;
  list.forEach((shown, place) => {
    // Held items may have changed their band; headings go by the order on screen, each once.
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
  if (band && more) /** @type {{more: boolean}} */ (band).more = true; // the last band may go on
  return { rows, height: top };
}

/**
 * The rows that touch the part on screen and some around it, and always the one that has the focus.
 * @param {readonly Row[]} rows
 * @param {number} from pixels
 * @param {number} to pixels
 * @param {string | null} keep
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
 * Items chosen with shift: all from the one chosen last to this one.
 * @param {ReadonlySet<string>} chosen
 * @param {readonly string[]} order
 * @param {string | null} anchor
 * @param {string} id
 * @param {boolean} range
 * @returns {Set<string>}
 */
export function select(chosen, order, anchor, id, range) {
  const next = new Set(chosen);
  const from = anchor === null ? -1 : order.indexOf(anchor), to = order.indexOf(id);
  if (!range || from < 0 || to < 0) {
    if (!next.delete(id)) next.add(id);
    return next;
  }
  for (const one of order.slice(Math.min(from, to), Math.max(from, to) + 1)) next.add(one);
  return next;
}
