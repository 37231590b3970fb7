// The dialog of shortcuts, with the switch of single-key shortcuts. Loaded when it is opened.
import { html, useState } from "../ui/dom.js";
import { SHORTCUTS } from "./shortcut_list.js";
import { setShortcutsEnabled, shortcutsEnabled } from "./shortcuts.js";

/** The content of the dialog. */
export function ShortcutList() {
  const [on, setOn] = useState(shortcutsEnabled());
  return html`<dl class="sheet">${SHORTCUTS.map(([keys, what]) => html`<div key=${what}><dt>${keys.map((key) => html`<kbd key=${key}>${key}</kbd>`)}</dt><dd>${what}</dd></div>`)}</dl>
    <label class="switch"><input type="checkbox" checked=${on} onChange=${() => { setShortcutsEnabled(!on); setOn(!on); }} /> Single-key shortcuts are on</label>`;
}
