// Shows the text of a new key once, with a curl line that sends a first event.
import { now } from "../clock.js";
import { truncate } from "../text/labels.js";
import { html, useEffect, useRef, useState } from "../ui/dom.js";
import { copyField } from "./clipboard.js";
import { curlLine } from "./key_form.js";

/** @param {{made: {key: import("../types").SourceKey, secret?: string}, done: () => void}} how */
export function CreatedKey({ made: { key, secret }, done }) {
  const title = useRef(/** @type {HTMLElement | null} */ (null));
  useEffect(() => { title.current?.focus(); }, []);
  return html`<div class="created-key">
    <h3 ref=${title} tabIndex="-1">The key <bdi>${truncate(key.name, 200)}</bdi> exists</h3>
    ${secret === undefined
      ? html`<p class="notice bad">The response with the text of the key was lost, and attn keeps no copy. Revoke the key and create another one.</p>`
      : html`<p class="notice changed">Copy the key now. attn keeps only a hash: the text is not shown again after you close this card.</p>
        <${Copied} id="key-text" label="Key" text=${secret} rows="2" />
        <${Copied} id="key-curl" label="Send a first event" text=${curlLine(location.origin, secret, key, now())} rows="7" />
        <p class="hint">A shell may keep the line, with the key, in its history.</p>`}
    <div class="row-of"><button class="button primary" onClick=${done}>Done</button></div></div>`;
}

/** A text that cannot be changed, with its copy button. @param {{id: string, label: string, text: string, rows: string}} how */
function Copied({ id, label, text, rows }) {
  const field = useRef(/** @type {HTMLTextAreaElement | null} */ (null)), [said, say] = useState("");
  const copy = async () => {
    if (field.current) say(await copyField(field.current) ? "Copied" : "Not copied: the text is selected, copy it with the keyboard or the menu of the browser");
  };
  return html`<div class="entry"><label for=${id} class="name">${label}</label>
    <textarea id=${id} class="code" ref=${field} rows=${rows} readonly spellcheck="false" autocomplete="off" value=${text}></textarea>
    <div class="row-of"><button class="small" onClick=${copy}>Copy<span class="hidden"> ${label}</span></button><span class="hint" role="status">${said}</span></div></div>`;
}
