// The page, drawn from what `boot.js` set going.
import { follow } from "./shell/deep_links.js";
import { pressed } from "./shell/keyboard.js";
import { page, wake } from "./state/page_state.js";
import { watch } from "./shell/notifications.js";
import { App } from "./ui/app.js";
import { loadMarkdown } from "./ui/item/body.js";
import { html, render } from "./ui/dom.js";

watch();
follow();
const root = document.getElementById("app");
if (root) render(html`<${App} />`, root);

// What only an opened item needs, once the list is there; a failure is tried again when one is opened.
const listed = () => page.get().inbox.cursor !== null && (loadMarkdown().catch(() => {}), true);
if (!listed()) {
  const stop = page.listen(() => listed() && stop());
}

document.addEventListener("keydown", pressed);
addEventListener("online", wake);
document.addEventListener("visibilitychange", () => document.hidden || wake());
