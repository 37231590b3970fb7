// The page, drawn from what `start.js` set going.
import { follow } from "./address.js";
import { pressed } from "./keys.js";
import { page, wake } from "./model.js";
import { watch } from "./notify.js";
import { App } from "./ui/app.js";
import { loadMarkdown } from "./ui/body.js";
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
