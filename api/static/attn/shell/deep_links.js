// The address says which item is open: so it can be kept and shared, and the browser's Back closes what was opened.
import { findItem, showToast } from "../commands/item_commands.js";
import { request, ok } from "../http.js";
import { page } from "../state/page_state.js";
import { fetchDismissed } from "../state/paging.js";

const PREFIX = "#item=";

/** @type {string | null} what the address names, as far as it is on screen */
let idShown = null;
/** Whether the entry before this one is the list of this very page; a reload keeps it. */
let listBefore = history.state?.list === true;
/** From a Back of our own until the browser has gone there. */
let leaving = false;
/** From a look at the address until its item is there, with what was open then. @type {{open: string | null} | null} */
let reading = null;
let begun = false;

/** The item that the address names. */
function idInAddress() {
  if (!location.hash.startsWith(PREFIX)) return null;
  try {
    return decodeURIComponent(location.hash.slice(PREFIX.length));
  } catch {
    return null;
  }
}

const addressWithoutItem = () => location.pathname + location.search;

/** The address after what is open. @param {string | null} open */
function writeAddress(open) {
  if (open !== reading?.open) reading = null; // a person went on meanwhile
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

/** What is open after the address. */
async function readAddress() {
  const id = idInAddress(), mine = { open: page.get().openId };
  reading = mine;
  listBefore = history.state?.list === true;
  const known = id === null ? undefined : findItem(id);
  // What is not listed was resolved, put away, or is far down.
  const answer = id === null || known ? null : await request("GET", `/org/me/inbox/${encodeURIComponent(id)}`);
  const { openId, phase } = page.get();
  if (reading !== mine || phase !== "in") return;
  reading = null;
  if (openId !== mine.open) return writeAddress(openId);
  idShown = id;
  if (answer && ok(answer) && answer.data.state !== "resolved") fetchDismissed(page); // it may be there
  if (!answer || ok(answer)) return page.set({ openId: id, openItem: known ?? answer?.data ?? null, ...(id !== null && { activeId: id }) });
  if (answer.status === 404) showToast("The item does not exist, or it is not addressed to you.", { tone: "bad" });
  else {
    showToast("attn does not answer. Reload the page to open the item.", { tone: "bad" });
    if (openId === null) idShown = null; // the address stays, for that
  }
  writeAddress(openId);
}

function onPopState() {
  if (leaving) {
    leaving = false;
    idShown = idInAddress();
    listBefore = history.state?.list === true;
    writeAddress(page.get().openId); // something else may have been opened meanwhile
  } else if (page.get().phase === "in") readAddress();
}

/** @param {import("../state/store.js").State} state */
function onState(state) {
  if (state.phase !== "in") {
    begun = false; // whoever signs in next is led where the address says
    reading = null;
    return;
  }
  if (begun) return writeAddress(state.openId);
  if (state.inbox.cursor === null) return;
  begun = true;
  if (idInAddress() !== null) readAddress();
}

export function watchAddress() {
  page.listen(onState);
  addEventListener("popstate", onPopState);
  onState(page.get());
}
