// The address says which item is open: so it can be kept and shared, and the browser's Back closes what was opened.
import { find, say } from "../commands/item_commands.js";
import { ask, ok } from "../http.js";
import { page } from "../state/page_state.js";
import { fetchAway } from "../state/paging.js";

const MARK = "#item=";

/** @type {string | null} what the address names, as far as it is on screen */
let named = null;
/** Whether the entry before this one is the list of this very page; a reload keeps it. */
let listBefore = history.state?.list === true;
/** From a Back of our own until the browser has gone there. */
let leaving = false;
/** From a look at the address until its item is there, with what was open then. @type {{open: string | null} | null} */
let reading = null;
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
  if (open !== reading?.open) reading = null; // a person went on meanwhile
  if (open === named || leaving || reading) return;
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
  const id = wanted(), mine = { open: page.get().open };
  reading = mine;
  listBefore = history.state?.list === true;
  const known = id === null ? undefined : find(id);
  // What is not listed was resolved, put away, or is far down.
  const answer = id === null || known ? null : await ask("GET", `/org/me/inbox/${encodeURIComponent(id)}`);
  const { open, phase } = page.get();
  if (reading !== mine || phase !== "in") return;
  reading = null;
  if (open !== mine.open) return write(open);
  named = id;
  if (answer && ok(answer) && answer.data.state !== "resolved") fetchAway(page); // it may be there
  if (!answer || ok(answer)) return page.set({ open: id, opened: known ?? answer?.data ?? null, ...(id !== null && { active: id }) });
  if (answer.status === 404) say("That item is not there, or not meant for you.", { tone: "bad" });
  else {
    say("attn does not answer just now. Reload the page to see the item.", { tone: "bad" });
    if (open === null) named = null; // the address stays, for that
  }
  write(open);
}

function moved() {
  if (leaving) {
    leaving = false;
    named = wanted();
    listBefore = history.state?.list === true;
    write(page.get().open); // something else may have been opened meanwhile
  } else if (page.get().phase === "in") read();
}

/** @param {import("../state/store.js").State} state */
function changed(state) {
  if (state.phase !== "in") {
    begun = false; // whoever signs in next is led where the address says
    reading = null;
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
