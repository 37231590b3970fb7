// Entry of the page: renders it and installs keyboard, deep links and notifications. `boot.js` has started the requests.
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

// Loads the markdown modules after the list: only an opened item needs them. `body.js` repeats a failed load.
const listLoaded = () => page.get().inbox.cursor !== null && (loadMarkdown().catch(() => {}), true);
if (!listLoaded()) {
  const stop = page.listen(() => listLoaded() && stop());
}

document.addEventListener("keydown", onKeyDown);
addEventListener("online", retryNow);
document.addEventListener("visibilitychange", () => document.hidden || retryNow());
