// The page, drawn from what `boot.js` set going.
import { watchAddress } from "./shell/deep_links.js";
import { onKeyDown } from "./shell/keyboard.js";
import { page, retryNow } from "./state/page_state.js";
import { watchInbox } from "./shell/notifications.js";
import { App } from "./ui/app.js";
import { loadMarkdown } from "./ui/item/body.js";
import { html, render } from "./ui/dom.js";

watchInbox();
watchAddress();
const root = document.getElementById("app");
if (root) render(html`<${App} />`, root);

// What only an opened item needs, once the list is there; a failure is tried again when one is opened.
const listed = () => page.get().inbox.cursor !== null && (loadMarkdown().catch(() => {}), true);
if (!listed()) {
  const stop = page.listen(() => listed() && stop());
}

document.addEventListener("keydown", onKeyDown);
addEventListener("online", retryNow);
document.addEventListener("visibilitychange", () => document.hidden || retryNow());
