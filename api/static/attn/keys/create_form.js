// The form of a new key. A request without a definite answer is repeated with its Idempotency-Key, so it creates one key.
import { now } from "../clock.js";
import { newIdempotencyKey, ok, sendWrite } from "../http.js";
import { html, useEffect, useRef, useState } from "../ui/dom.js";
import { EXPIRIES, explainKeys, NO_VALUES, problemsOf, requestBody, TOPICS } from "./key_form.js";

/** @typedef {import("./key_form.js").Values} Values */
/** @typedef {import("./key_form.js").Problems} Problems */
/** @typedef {{key: import("../types").SourceKey, secret?: string}} Made */

const UNCONFIRMED = new Set([0, 503]); // statuses after which nobody knows whether the key was created

/** @param {HTMLFormElement} form @returns {Values} */
function valuesOf(form) {
  const data = new FormData(form), text = (/** @type {string} */ name) => String(data.get(name) ?? "");
  return { name: text("name"), topics: data.getAll("topic").map(String), source: text("source"), expiry: text("expiry"), date: text("date") };
}

/** @param {{path: string, created: (made: Made) => void, cancel: () => void}} how */
export function CreateForm({ path, created, cancel }) {
  const [problems, setProblems] = useState(/** @type {Problems} */ ({}));
  const [failed, fail] = useState(""), [busy, setBusy] = useState(false), [expiry, setExpiry] = useState(NO_VALUES.expiry);
  const form = useRef(/** @type {HTMLFormElement | null} */ (null));
  const write = useRef(/** @type {{key: string, body: object, of: string} | null} */ (null));
  useEffect(() => { form.current?.querySelector("input")?.focus(); }, []);
  const submit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    if (!form.current || busy) return;
    const values = valuesOf(form.current), found = problemsOf(values, now());
    setProblems(found);
    const [wrong] = Object.keys(found);
    if (wrong) {
      const input = form.current.querySelector(`#key-${wrong}, [aria-describedby~="key-${wrong}-error"] input`);
      return input instanceof HTMLElement && input.focus();
    }
    const of = JSON.stringify(values);
    if (write.current?.of !== of) write.current = { key: newIdempotencyKey(), body: requestBody(values, now()), of };
    setBusy(true);
    const answer = await sendWrite("POST", path, write.current.body, undefined, write.current.key);
    setBusy(false);
    if (!UNCONFIRMED.has(answer.status)) write.current = null;
    if (ok(answer)) return created(answer.data);
    fail(explainKeys(answer));
  };
  const error = (/** @type {keyof Problems} */ name) => html`<small class="error" id=${`key-${name}-error`}>${problems[name] ?? ""}</small>`;
  return html`<form class="new-key" ref=${form} onSubmit=${submit} noValidate aria-label="New key">
    <div class=${problems.name ? "entry wrong" : "entry"}><label for="key-name" class="name">Name</label>
      <input id="key-name" name="name" type="text" maxlength="400" required autocomplete="off" aria-invalid=${Boolean(problems.name)} aria-describedby="key-name-error" placeholder="CI of the shop" />${error("name")}</div>
    <fieldset class="entry" aria-describedby="key-topics-error"><legend class="name">Topics that it may send to</legend>
      <div class="topics">${Object.entries(TOPICS).map(([topic, { name }]) => html`<label key=${topic} class="pickone"><input type="checkbox" name="topic" value=${topic} /><span><b>${topic}</b> ${name !== topic && html`<small>${name}</small>`}</span></label>`)}</div>${error("topics")}</fieldset>
    <div class=${problems.source ? "entry wrong" : "entry"}><label for="key-source"><span class="name">Source</span> <span class="needed">optional</span></label>
      <input id="key-source" name="source" type="text" maxlength="4000" autocomplete="off" spellcheck="false" aria-describedby="key-source-help key-source-error" placeholder="/pipelines" />
      <small class="hint" id="key-source-help">Its events must have this source, or one below it. Empty: any source.</small>${error("source")}</div>
    <div class=${problems.date ? "entry wrong" : "entry"}><label for="key-expiry" class="name">Expires</label>
      <select id="key-expiry" name="expiry" value=${expiry} onChange=${(/** @type {Event} */ event) => setExpiry(/** @type {HTMLSelectElement} */ (event.target).value)}>
        ${["30", "90", "365", "date", "never"].map((one) => html`<option key=${one} value=${one}>${EXPIRIES[one]}</option>`)}</select>
      ${expiry === "date" && html`<input id="key-date" name="date" type="date" aria-label="Last day" aria-invalid=${Boolean(problems.date)} aria-describedby="key-date-error" />`}${error("date")}</div>
    ${failed && html`<p class="notice bad" role="alert">${failed}</p>`}
    <div class="row-of"><button class="button primary" disabled=${busy}>${busy ? "Creating…" : "Create the key"}</button>
      <button type="button" class="button" onClick=${cancel}>Cancel</button></div>
  </form>`;
}
