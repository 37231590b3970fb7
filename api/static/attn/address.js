// The address says which item is open: so it can be kept and shared, and the browser's Back closes what was opened.
import { find, say } from "./actions.js";
import { ask, explain, ok } from "./http.js";
import { page } from "./model.js";

const MARK = "#item=";

/** @type {string | null} what the address names, as far as it is on screen */
let named = null;
/** Whether the entry before this one is the list of this very page; a reload keeps it. */
let listBefore = history.state?.list === true;
/** From a Back of our own until the browser has gone there, and while an item is fetched: the address is as it is. */
let leaving = false, fetching = false;
let begun = false;

/** The item that the address names. */
function wanted() {
  if (!location.hash.startsWith(MARK)) return null;
  try {
    return decodeURIComponent(location.hash.slice(MARK.length));
  } catch {
    return null;
  }
}

const bare = () => location.pathname + location.search;

/** The address after what is open. @param {string | null} open */
function write(open) {
  if (open === named || leaving || fetching) return;
  const from = named;
  named = open;
  if (open === null) {
    if (listBefore) {
      leaving = true;
      history.back();
    } else history.replaceState(null, "", bare());
  } else {
    const to = MARK + encodeURIComponent(open);
    if (from === null) {
      history.pushState({ list: true }, "", to);
      listBefore = true;
    } else history.replaceState(history.state, "", to);
  }
}

/** What is open after the address. */
async function read() {
  const id = wanted();
  listBefore = history.state?.list === true;
  const item = id === null ? null : find(id) ?? await fetched(id);
  if (wanted() !== id) return; // it went on meanwhile
  named = id;
  const { open } = page.get();
  if (id !== null && item === null) write(open);
  else page.set({ open: id, opened: item, ...(id !== null && { active: id }) });
}

/** An item that is not listed: resolved, put away, or far down. @param {string} id */
async function fetched(id) {
  fetching = true;
  const answer = await ask("GET", `/org/me/inbox/${encodeURIComponent(id)}`);
  fetching = false;
  if (ok(answer)) return answer.data;
  say(answer.status === 404 ? "That item is not there, or not meant for you." : explain(answer), { tone: "bad" });
  return null;
}

function moved() {
  if (leaving) {
    leaving = false;
    named = wanted();
    listBefore = history.state?.list === true;
    return write(page.get().open); // something else may have been opened meanwhile
  }
  if (location.hash && !location.hash.startsWith(MARK)) { // the way past the header to the list
    history.replaceState(history.state, "", named === null ? bare() : MARK + encodeURIComponent(named));
  } else if (page.get().phase === "in") read();
}

/** @param {import("./store.js").State} state */
function changed(state) {
  if (state.phase !== "in") {
    begun = false; // whoever signs in next is led where the address says
    return;
  }
  if (begun) return write(state.open);
  if (state.inbox.cursor === null) return;
  begun = true;
  if (wanted() !== null) read();
}

export function follow() {
  page.listen(changed);
  addEventListener("popstate", moved);
  changed(page.get());
}
