// Signals for a page in the background: unread count in the title, a dot on the icon, and optional desktop notifications.
import { showToast } from "../commands/item_commands.js";
import { page } from "../state/page_state.js";
import { truncate, isolate } from "../text/labels.js";

/** @typedef {import("../state/store.js").State} State */

const STORAGE_KEY = "attn-notify", LONG = 100; // characters of a name
/** @type {Set<string>} */
const announced = new Set();
let shown = -1, first = true;
/** Chrome on Android has `Notification`, but its constructor throws. */
let unsupported = false;

const allowed = () => !unsupported && "Notification" in globalThis && Notification.permission === "granted" && localStorage.getItem(STORAGE_KEY) !== null;

/** Switches desktop notifications on or off; the choice is stored in this browser. */
export async function toggleNotifications() {
  if (allowed()) {
    localStorage.removeItem(STORAGE_KEY);
    return page.set({ notificationsOn: false });
  }
  if (unsupported || !("Notification" in globalThis)) return showToast("This browser does not support notifications.");
  if ((await Notification.requestPermission()) !== "granted") return showToast("The browser does not allow notifications from this page. Allow them in its site settings.");
  localStorage.setItem(STORAGE_KEY, "1");
  page.set({ notificationsOn: true });
  showToast("Notifications are on: urgent items, while this page is in the background.");
}

/** Updates title and icon, and notifies of new urgent items. @param {State} state */
function onState(state) {
  const { inbox, phase } = state;
  const unread = phase === "in" ? inbox.counts.unread : 0;
  if (unread !== shown) {
    shown = unread;
    document.title = unread > 0 ? `(${unread > 999 ? "999+" : unread}) attn` : "attn";
    setIcon(unread);
  }
  if (inbox.cursor === null) return;
  for (const item of inbox.items) {
    if (item.band !== "urgent") break; // urgent items come first
    if (announced.has(item.id)) continue;
    announced.add(item.id);
    // Only the leader tab notifies.
    if (!first && document.hidden && state.isLeader && item.state === "unread" && allowed()) notify(item);
  }
  first = false;
}

/** Shows a desktop notification of an item; if the browser cannot, a message in the page. Never throws. @param {import("../types").Item} item */
async function notify(item) {
  const how = { body: [item.cluster, item.sender_name].filter((text) => text !== undefined).map((text) => isolate(truncate(text, LONG))).join(", "), tag: item.id };
  const title = isolate(item.title);
  try {
    const note = new Notification(title, how);
    note.onclick = () => {
      window.focus();
      page.set({ openId: item.id, openItem: item, activeId: item.id });
      note.close();
    };
  } catch {
    try {
      const worker = await navigator.serviceWorker?.getRegistration();
      if (worker) return await worker.showNotification(title, how);
    } catch { /* not supported either */ }
    unsupported = true;
    page.set({ notificationsOn: false });
    showToast(`Urgent: ${title}. This browser can't show notifications from a page, so they are off now.`);
  }
}

/** Shows a dot on the tab's icon while there are unread items. @param {number} unread */
function setIcon(unread) {
  const icon = document.querySelector('link[rel="icon"]');
  icon?.setAttribute("href", unread > 0 ? "/static/icon-unread.svg" : "/static/icon.svg");
}

/** Starts the title, the icon and the notifications. */
export function watchInbox() {
  page.set({ notificationsOn: allowed() });
  page.listen(onState);
  onState(page.get()); // the list may be loaded already
}
