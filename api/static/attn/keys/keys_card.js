// The card "Keys of sources": list, create, revoke. For the roles OWNER and ADMIN; loaded when it is opened.
import { now as serverNow } from "../clock.js";
import { newIdempotencyKey, ok, request, sendWrite } from "../http.js";
import { page } from "../state/page_state.js";
import { truncate } from "../text/labels.js";
import { html, useClock, useEffect, useRef, useState } from "../ui/dom.js";
import { Icon } from "../ui/icons.js";
import { Paged } from "../ui/show_more.js";
import { aboutKey, explainKeys, hasExpired } from "./key_form.js";
import { CreateForm } from "./create_form.js";
import { CreatedKey } from "./created_key.js";

/** @typedef {import("../types").SourceKey} SourceKey */

const SHOWN = 20, LONG = 200; // keys shown at once, characters of a name
const PATH = "/org/me/keys";

// The stylesheet is loaded with the card: the list needs none of it. The card appears after it.
const style = Object.assign(document.createElement("link"), { rel: "stylesheet", href: new URL("../../keys.css", import.meta.url).href });
await new Promise((done) => {
  style.onload = style.onerror = done;
  document.head.append(style);
});

/**
 * The content of the card. The text of a new key is in this component's state only: it is gone when the card closes.
 */
export function KeysCard() {
  const [keys, setKeys] = useState(/** @type {SourceKey[] | null} */ (null));
  const [problem, setProblem] = useState("");
  const [creating, setCreating] = useState(false);
  const [made, setMade] = useState(/** @type {{key: SourceKey, secret?: string} | null} */ (null));
  const here = useRef(true), list = useRef(/** @type {HTMLElement | null} */ (null));
  const load = async () => {
    const answer = await request("GET", PATH);
    if (!here.current) return;
    if (ok(answer)) setKeys(answer.data.keys);
    setProblem(ok(answer) ? "" : explainKeys(answer));
  };
  useEffect(() => { load(); return () => { here.current = false; }; }, []);
  const focusList = () => requestAnimationFrame(() => requestAnimationFrame(() => list.current?.focus()));
  const created = (/** @type {{key: SourceKey, secret?: string}} */ answer) => {
    if (!here.current) return;
    setMade(answer);
    setCreating(false);
    load();
  };
  const revoked = (/** @type {SourceKey} */ key) => {
    if (!here.current) return;
    setKeys((all) => all && all.filter((one) => one.id !== key.id));
    page.set({ announcement: `Key ${truncate(key.name, LONG)} revoked` });
    focusList();
  };
  if (made) return html`<${CreatedKey} made=${made} done=${() => { setMade(null); focusList(); }} />`;
  if (creating) return html`<${CreateForm} path=${PATH} created=${created} cancel=${() => { setCreating(false); focusList(); }} />`;
  return html`<p class="hint">A source sends its events to <code>POST /events</code> with a key. A key reads only its own items and decisions.</p>
    <div class="row-of"><button class="button primary" onClick=${() => setCreating(true)}><${Icon} name="key" size="16" /> New key</button></div>
    ${problem && html`<p class="notice bad" role="alert">${problem} <button class="small" onClick=${load}>Try again</button></p>`}
    ${keys === null ? !problem && html`<p class="hint" role="status">Loading…</p>`
      : html`<section ref=${list} tabIndex="-1" aria-labelledby="keys-listed"><h3 id="keys-listed" class="hidden">Keys of this workspace</h3>
          ${keys.length === 0 ? html`<p class="hint">This workspace has no keys.</p>` : html`<ul class="keys" role="list"><${Paged} of=${keys} most=${SHOWN} one="key"
            draw=${(/** @type {SourceKey} */ key) => html`<${Entry} key=${key.id} of=${key} revoked=${revoked} />`} end=${(/** @type {any} */ button) => html`<li>${button}</li>`} /></ul>`}</section>`}`;
}

/** A key, and the two steps in which it is revoked. @param {{of: SourceKey, revoked: (key: SourceKey) => void}} how */
function Entry({ of: key, revoked }) {
  const now = useClock(serverNow, 30_000), about = aboutKey(key, now), name = truncate(key.name, LONG);
  const [asking, ask] = useState(false), [busy, setBusy] = useState(false), [problem, setProblem] = useState("");
  const write = useRef(newIdempotencyKey()), keep = useRef(/** @type {HTMLElement | null} */ (null)), first = useRef(/** @type {HTMLElement | null} */ (null));
  // The focus follows the button that replaces the pressed one; "Keep" gets it, so that a second press revokes nothing.
  useEffect(() => { if (asking) keep.current?.focus(); }, [asking]);
  const stay = () => { ask(false); requestAnimationFrame(() => requestAnimationFrame(() => first.current?.focus())); };
  const revoke = async () => {
    setBusy(true);
    const answer = await sendWrite("DELETE", `${PATH}/${encodeURIComponent(key.id)}`, undefined, undefined, write.current);
    if (ok(answer) || answer.status === 404) return revoked(key); // 404: somebody else revoked it
    setBusy(false);
    setProblem(explainKeys(answer));
  };
  return html`<li class=${hasExpired(key, now) ? "key-entry expired" : "key-entry"}>
    <b dir="auto">${name}</b>
    <code>attn_${key.id}_…</code>
    <span class="about"><span>${key.topics.join(", ")}</span>${key.source !== undefined && html`<span>source <bdi>${truncate(key.source, LONG)}</bdi></span>`}</span>
    <span class="about"><span>created ${about.created} by <bdi>${truncate(key.created_by, LONG)}</bdi></span><span>${about.expires}</span><span>${about.used}</span></span>
    ${asking ? html`<span class="row-of" role="group" aria-label=${`Revoke ${name}?`}><span>Whoever uses it is refused from then on.</span>
        <button class="small" ref=${keep} onClick=${stay}>Keep</button>
        <button class="small danger" disabled=${busy} onClick=${revoke}>Revoke now<span class="hidden"> ${name}</span></button></span>`
      : html`<button class="small" ref=${first} onClick=${() => ask(true)}>Revoke<span class="hidden"> ${name}</span></button>`}
    ${problem && html`<p class="error" role="alert">${problem}</p>`}
  </li>`;
}
