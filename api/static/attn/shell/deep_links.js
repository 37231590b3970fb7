// Deep links: the fragment `#item=ID` names the open item, so it can be bookmarked and shared. The browser's Back button closes
// the item.
import { findItem, showToast } from "../commands/item_commands.js";
import { request, ok } from "../http.js";
import { page } from "../state/page_state.js";
import { fetchDismissed } from "../state/paging.js";

const PREFIX = "#item=";

/** @type {string | null} item of the address that is shown */
let idShown = null;
/** Whether the previous history entry is the list of this page; the entry's state keeps it across a reload. */
let listBefore = history.state?.list === true;
/** Whether a `history.back()` of this module is in progress. */
let leaving = false;
/** While the item of the address is fetched: the item that was open before. @type {{open: string | null} | null} */
let reading = null;
let started = false;

/** Returns the item id of the address, or null. */
function idInAddress() {
  if (!location.hash.startsWith(PREFIX)) return null;
  try {
    return decodeURIComponent(location.hash.slice(PREFIX.length));
  } catch {
    return null;
  }
}

const addressWithoutItem = () => location.pathname + location.search;

/** Updates the address to the open item. @param {string | null} open */
function writeAddress(open) {
  if (open !== reading?.open) reading = null; // the user opened another item in the meantime
  if (open === idShown || leaving || reading) return;
  const from = idShown;
  idShown = open;
  if (open === null) {
    if (listBefore) {
      leaving = true;
      history.back();
    } else history.replaceState(null, "", addressWithoutItem());
  } else {
    const to = PREFIX + encodeURIComponent(open);
    if (from === null) {
      history.pushState({ list: true }, "", to);
      listBefore = true;
    } else history.replaceState(history.state, "", to);
  }
}

/** Opens the item of the address. */
async function readAddress() {
  const id = idInAddress(), mine = { open: page.get().openId };
  reading = mine;
  listBefore = history.state?.list === true;
  const known = id === null ? undefined : findItem(id);
  // An item that is not in the list is resolved, dismissed, or beyond the fetched pages.
  const answer = id === null || known ? null : await request("GET", `/org/me/inbox/${encodeURIComponent(id)}`);
  const { openId, phase } = page.get();
  if (reading !== mine || phase !== "in") return;
  reading = null;
  if (openId !== mine.open) return writeAddress(openId);
  idShown = id;
  if (answer && ok(answer) && answer.data.state !== "resolved") fetchDismissed(page); // it may be dismissed
  if (!answer || ok(answer)) return page.set({ openId: id, openItem: known ?? answer?.data ?? null, ...(id !== null && { activeId: id }) });
  if (answer.status === 404) showToast("The item does not exist, or it is not addressed to you.", { tone: "bad" });
  else {
    showToast("attn does not answer. Reload the page to open the item.", { tone: "bad" });
    if (openId === null) idShown = null; // the address stays, so a reload opens the item
  }
  writeAddress(openId);
}

/** Handles Back, Forward and edits of the fragment. */
function onPopState() {
  if (leaving) {
    leaving = false;
    idShown = idInAddress();
    listBefore = history.state?.list === true;
    writeAddress(page.get().openId); // another item may have been opened in the meantime
  } else if (page.get().phase === "in") readAddress();
}

/** @param {import("../state/store.js").State} state */
function onState(state) {
  if (state.phase !== "in") {
    started = false; // after the next sign-in the item of the address is opened
    reading = null;
    return;
  }
  if (started) return writeAddress(state.openId);
  if (state.inbox.cursor === null) return;
  started = true;
  if (idInAddress() !== null) readAddress();
}

/** Keeps the address and the open item in step. */
export function watchAddress() {
  page.listen(onState);
  addEventListener("popstate", onPopState);
  onState(page.get());
}
