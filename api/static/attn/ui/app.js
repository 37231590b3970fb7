// Page layout: sign-in form, header, sidebar, list, item, overview, messages.
import { dismiss, findItem, hideToast, setState, resolve, restore } from "../commands/item_commands.js";
import { request } from "../http.js";
import { navigate, page, signIn, WIDE } from "../state/page_state.js";
import { now } from "../clock.js";
import { truncate, plural } from "../text/labels.js";
import { Answering } from "./answering.js";
import { Detail } from "./item/detail.js";
import { Dialogs } from "./dialogs.js";
import { html, useClock, useEffect, useMedia, useState, useStore } from "./dom.js";
import { Icon } from "./icons.js";
import { List } from "./list.js";
import { Overview } from "./overview/overview.js";
import { askSnooze } from "./item/row.js";
import { Chips, Filters, Views } from "./sidebar.js";
import { Banner, Header } from "./header.js";

/** @typedef {import("../state/store.js").State} State */

export function App() {
  const state = useStore();
  const wide = useMedia(WIDE);
  if (state.phase === "starting") return null;
  if (state.phase === "out") return html`<${SignIn} reason=${state.signedOutReason} />`;
  const open = state.openItem !== null;
  const show = state.overview && !open ? "overview" : open ? "item" : "list";
  return html`
    <div class=${`app shows-${show}`}>
      <h1 class="hidden">Inbox</h1>
      <a class="skip" href="#list" onClick=${skip}>To the list</a>
      <${Header} state=${state} />
      <${Banner} state=${state} />
      <div class="columns">
        <nav class="side" aria-label="Inbox"><div><${Views} state=${state} />
          ${!wide && html`<button class="nav" aria-current=${show === "overview" ? "page" : undefined} onClick=${() => page.set({ overview: !state.overview, openId: null, openItem: null })}>
            <${Icon} name="chart" /> <span>Overview</span></button>`}</div>
          <div class="filters"><${Filters} state=${state} /></div></nav>
        <main class="middle" aria-label=${state.view === "decisions" ? "My decisions" : "Inbox"}>
          <div class="narrow-bar"><${Views} state=${state} /><button class="plain" aria-label="Filters" onClick=${() => page.set({ dialog: "filters" })}><${Icon} name="filter" /></button></div>
          ${state.view === "decisions" ? html`<${Answering} part="MyDecisions" state=${state} />` : html`
            ${state.selected.size > 0 ? html`<${Bulk} state=${state} />` : html`<${Chips} state=${state} />`}
            <${List} state=${state} />`}
        </main>
        ${(open || wide || state.overview) && html`<div class="right" role=${wide ? "complementary" : "main"} aria-label=${open ? "Item" : "Overview"}>
          ${open ? html`<${Detail} state=${state} />` : html`<${Overview} state=${state} />`}</div>`}
      </div>
      <nav class="bottom" aria-label="Page">
        <button aria-current=${show !== "overview" && state.view !== "decisions" ? "page" : undefined} onClick=${() => navigate({ view: state.view === "decisions" ? "open" : state.view })}><${Icon} name="inbox" /> Inbox</button>
        <button aria-current=${show !== "overview" && state.view === "decisions" ? "page" : undefined} onClick=${() => navigate({ view: "decisions" })}><${Icon} name="check" /> Decisions</button>
        <button aria-current=${show === "overview" ? "page" : undefined} onClick=${() => page.set({ overview: true, openId: null, openItem: null })}><${Icon} name="chart" /> Overview</button>
      </nav>
      <${Toasts} state=${state} />
      <${Dialogs} state=${state} />
      <p class="hidden" role="status" aria-live="polite" id="heard">${state.announcement}</p>
    </div>`;
}

/** Moves the focus to the list without changing the address, whose fragment belongs to the open item. @param {Event} event */
function skip(event) {
  event.preventDefault();
  document.getElementById("list")?.focus();
}

/** @param {{state: State}} how */
function Bulk({ state }) {
  const ids = [...state.selected], dismissed = state.view === "dismissed";
  return html`<div class="bulk" role="toolbar" aria-label="Selected items">
    <b>${plural(ids.length, "item")} selected</b>
    ${dismissed ? html`<button class="button" onClick=${() => restore(ids)}><${Icon} name="back" size="16" /> Restore</button>` : html`
      ${ids.some((id) => findItem(id)?.ask) && html`<button class="button primary" onClick=${() => page.set({ dialog: "answers" })}><${Icon} name="question" size="16" /> Answer</button>`}
      <button class="button" onClick=${() => resolve(ids)}><${Icon} name="check" size="16" /> Resolve</button>
      <button class="button" onClick=${() => setState(ids, "read")}><${Icon} name="unread" size="16" /> Read</button>
      <button class="button" onClick=${() => askSnooze(ids)}><${Icon} name="clock" size="16" /> Snooze</button>
      <button class="button" onClick=${() => dismiss(ids)}><${Icon} name="dismissed" size="16" /> Dismiss</button>`}
    <button class="plain" aria-label="Clear the selection" onClick=${() => page.set({ selected: new Set(), selectionAnchor: null })}><${Icon} name="close" /></button>
  </div>`;
}

const LONG = 600; // characters of a message

/** @param {{state: State}} how */
const Toasts = ({ state }) => html`<div class="toasts">
  ${state.toasts.map((toast) => html`<div key=${toast.id} class=${`toast ${toast.tone}`}>
    <div><p>${truncate(toast.text, LONG)}</p>
      ${toast.links.length > 0 && html`<ul role="list">${toast.links.map((link) => html`<li key=${link.href + link.text}><a href=${link.href} target="_blank" rel="noopener noreferrer"><bdi>${truncate(link.text, LONG)}</bdi></a></li>`)}</ul>`}</div>
    ${toast.undo && html`<${Undo} toast=${toast} />`}
    <button class="plain" aria-label="Close this message" onClick=${() => hideToast(toast.id)}><${Icon} name="close" size="15" /></button>
  </div>`)}</div>`;

/** The undo button of a message; with an end it counts the seconds down. @param {{toast: import("../state/store.js").Toast}} how */
function Undo({ toast }) {
  const left = Math.ceil((toast.until - useClock(now, 250)) / 1000);
  if (toast.until && left <= 0) return null;
  return html`<button class="small" onClick=${() => { hideToast(toast.id); toast.undo?.(); }}>${toast.until ? html`Take back <span aria-hidden="true">${left} s</span>` : "Undo"} <kbd>z</kbd></button>`;
}

/** Sign-in form; `reason` is why the user was signed out. @param {{reason: string}} how */
function SignIn({ reason }) {
  const [problem, showProblem] = useState(reason);
  const [busy, setBusy] = useState(false);
  const [issuer, setIssuer] = useState("");
  useEffect(() => { request("GET", "/auth/methods").then((answer) => setIssuer(answer.data?.issuer?.name ?? "")); }, []);
  const submit = async (/** @type {SubmitEvent} */ event) => {
    event.preventDefault();
    const token = String(new FormData(/** @type {HTMLFormElement} */ (event.target)).get("token") ?? "").trim();
    setBusy(true);
    showProblem(await signIn(token));
    setBusy(false);
  };
  return html`<main class="sign-in"><form onSubmit=${submit}>
    <p class="brand"><svg viewBox="0 0 24 24" width="44" height="44" aria-hidden="true"><rect x="1" y="1" width="22" height="22" rx="7" /><path d="M6 13.5h3.2l1.5 2.5h2.6l1.5-2.5H18M12 5.5v5M9.8 8.6L12 10.8l2.2-2.2" /></svg></p>
    <h1>attn</h1>
    <p class="lead">What needs you, most pressing first.</p>
    ${issuer && html`<a class="button primary" href=${`/auth/login?return_to=${encodeURIComponent(`/${location.hash}`)}`}>Sign in with <bdi>${truncate(issuer, 60)}</bdi></a>
      <p class="hint">Or with a token:</p>`}
    <label for="token">Access token</label>
    <input id="token" name="token" type="password" required autocomplete="off" spellcheck="false" aria-describedby="token-help token-problem" />
    <p class="problem" id="token-problem" role="alert">${problem}</p>
    <button class=${issuer ? "button" : "button primary"} disabled=${busy}>${busy ? "Signing in…" : "Sign in"}</button>
    <p class="hint" id="token-help">In development: <code>attn token --workspace ws_01 --user ann --role OWNER</code></p>
  </form></main>`;
}
