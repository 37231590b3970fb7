// Entry of the page: renders it and installs keyboard, deep links and notifications. `boot.js` has started the requests.
import { watchAddress } from "./shell/deep_links.js";
import { onKeyDown } from "./shell/keyboard.js";
import { page, retryNow } from "./state/page_state.js";
import { watchInbox } from "./shell/notifications.js";
import { App } from "./ui/app.js";
import { loadAnswering } from "./ui/answering.js";
import { loadMarkdown } from "./ui/item/body.js";
import { html, render } from "./ui/dom.js";

watchInbox();
watchAddress();
const root = document.getElementById("app");
if (root) render(html`<${App} />`, root);

// Loads the modules of markdown and answers after the list: only an opened item needs them. A failed load is repeated.
const listLoaded = () => page.get().inbox.cursor !== null && (loadMarkdown().catch(() => {}), loadAnswering().catch(() => {}), true);
if (!listLoaded()) {
  const stop = page.listen(() => listLoaded() && stop());
}

const askTerminal = () => location.hash.startsWith("#device=") && import("./keys/terminal_address.js");
askTerminal();
addEventListener("hashchange", askTerminal);
document.addEventListener("keydown", onKeyDown);
addEventListener("online", retryNow);
document.addEventListener("visibilitychange", () => document.hidden || retryNow());
