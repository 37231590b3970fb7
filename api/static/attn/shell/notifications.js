// What says that something waits while nobody looks: the tab's title and icon, and, if asked for, the desktop.
import { say } from "../commands/item_commands.js";
import { page } from "../state/page_state.js";
import { cut, isolated } from "../text/labels.js";

/** @typedef {import("../state/store.js").State} State */

const KEPT = "attn-notify", LONG = 100; // characters of a name
/** @type {Set<string>} */
const told = new Set();
let shown = -1, first = true;
/** Chrome on Android has `Notification`, and throws when one is made. */
let broken = false;

const allowed = () => !broken && "Notification" in globalThis && Notification.permission === "granted" && localStorage.getItem(KEPT) !== null;

/** A person's own choice, which they can take back. */
export async function askToNotify() {
  if (allowed()) {
    localStorage.removeItem(KEPT);
    return page.set({ notifies: false });
  }
  if (broken || !("Notification" in globalThis)) return say("This browser has no notifications.");
  if ((await Notification.requestPermission()) !== "granted") return say("The browser does not allow notifications of this page.");
  localStorage.setItem(KEPT, "1");
  page.set({ notifies: true });
  say("You will be told of urgent items while this page is in the background.");
}

/** @param {State} state */
function notice(state) {
  const { inbox, phase } = state;
  const unread = phase === "in" ? inbox.counts.unread : 0;
  if (unread !== shown) {
    shown = unread;
    document.title = unread > 0 ? `(${unread > 999 ? "999+" : unread}) attn` : "attn";
    badge(unread);
  }
  if (inbox.cursor === null) return;
  for (const item of inbox.items) {
    if (item.band !== "urgent") break; // they come first
    if (told.has(item.id)) continue;
    told.add(item.id);
    // One tab speaks: the one that has the connection.
    if (!first && document.hidden && state.leads && item.state === "unread" && allowed()) show(item);
  }
  first = false;
}

/** Shows it on the desktop; where the browser does not, in the page. Whatever follows goes on. @param {import("../types").Item} item */
async function show(item) {
  const how = { body: [item.cluster, item.sender_name].filter((text) => text !== undefined).map((text) => isolated(cut(text, LONG))).join(", "), tag: item.id };
  const title = isolated(item.title);
  try {
    const note = new Notification(title, how);
    note.onclick = () => {
      window.focus();
      page.set({ open: item.id, opened: item, active: item.id });
      note.close();
    };
  } catch {
    try {
      const worker = await navigator.serviceWorker?.getRegistration();
      if (worker) return await worker.showNotification(title, how);
    } catch { /* nor this way */ }
    broken = true;
    page.set({ notifies: false });
    say(`Urgent: ${title}. This browser shows no notifications of a page.`);
  }
}

/** A dot on the tab's icon while something is unread. @param {number} unread */
function badge(unread) {
  const icon = document.querySelector('link[rel="icon"]');
  icon?.setAttribute("href", unread > 0 ? "/static/icon-unread.svg" : "/static/icon.svg");
}

export function watch() {
  page.set({ notifies: allowed() });
  page.listen(notice);
  notice(page.get()); // the list may be there already
}
