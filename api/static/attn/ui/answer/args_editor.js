// Editor of an action's arguments, and the list of what changes.
import { argFields, changes, entriesOf, isFree, pathText } from "../../answer/args_model.js";
import { stringify } from "../../exact.js";
import { hasSecret, isSecret } from "../../text/secret_masking.js";
import { truncate } from "../../text/labels.js";
import { html, useMemo, useState } from "../dom.js";
import { Secret } from "../item/payload.js";
import { LongText } from "../show_more.js";
import { idOf, Labelled, SecretInput, tied } from "./fields.js";
import { inline } from "./json_view.js";

/** @typedef {import("../../types").Action} Action */
/** @typedef {import("../../answer/drafts.js").Draft} Draft */

const LONG = 600; // characters of a value in the list of changes

/** @param {{value: any, path: readonly string[]}} how */
const Value = ({ value, path }) => (value === undefined ? html`<i>nothing</i>`
  : path.some((name) => isSecret(name, value)) || isSecret("", value) ? html`<${Secret} name=${path[path.length - 1] ?? "value"} value=${value} />`
    : html`<code dir="auto"><${LongText} text=${inline(value)} most=${LONG} /></code>`);

/** What changes. @param {{before: any, after: any, title: string}} how */
export function Diff({ before, after, title }) {
  const found = useMemo(() => changes(before, after), [before, after]);
  return html`<section class="diff" aria-label=${title}>
    <h4>${title} <span class="count">${found.length}</span></h4>
    ${found.length === 0 && html`<p class="hint">Nothing.</p>`}
    <ul role="list">${found.map((one) => html`<li key=${one.path.join("\u0000")}><b dir="auto">${truncate(pathText(one.path) || "all", LONG)}</b>
      <span class="was"><span class="hidden">was </span><del><${Value} value=${one.before} path=${one.path} /></del></span>
      <span aria-hidden="true">→</span>
      <span class="is"><span class="hidden">becomes </span><ins><${Value} value=${one.after} path=${one.path} /></ins></span></li>`)}</ul>
  </section>`;
}

/**
 * @param {{action: Action, draft: Draft, errors: Record<string, string>, disabled: boolean, change: (some: Partial<Draft>) => void, result: Record<string, any> | null}} how
 *   `result`: the new arguments, or null if they can't be read
 */
export function ArgsEditor({ action, draft, errors, disabled, change, result }) {
  const fields = useMemo(() => argFields(action), [action]), editable = fields.filter((field) => field.editable);
  const whole = draft.json !== null, fixed = fields.filter((field) => !field.editable && !field.missing).map((field) => field.name);
  const entries = whole && result ? entriesOf(fields, result) : null;
  const toggle = () => change(entries ? { json: null, args: entries } : { json: stringify(result ?? action.args ?? {}, 2) });
  return html`<section class="editor" aria-label="Arguments">
    ${whole ? html`<${Labelled} path="args" label="Arguments as JSON" help="All arguments. Types and digits are sent as you write them." error=${errors.args} required=${true}>
        <textarea ...${tied("args", errors.args, true)} class="code" rows="8" spellcheck="false" disabled=${disabled} value=${draft.json} dir="ltr"
          onInput=${(/** @type {Event} */ event) => change({ json: /** @type {HTMLTextAreaElement} */ (event.target).value })}></textarea><//>`
      : html`${errors.args && html`<p class="error" id=${idOf("args")} tabIndex="-1">${errors.args}</p>`}
        ${editable.map((field) => html`<${ArgEntry} key=${field.name} field=${field} text=${Object.hasOwn(draft.args, field.name) ? draft.args[field.name] : field.initial}
          error=${errors[`args.${field.name}`]} disabled=${disabled} secret=${hasSecret(field.name, (action.args ?? {})[field.name])} set=${(/** @type {string} */ text) => change({ args: { ...draft.args, [field.name]: text } })} />`)}`}
    ${fixed.length > 0 && html`<p class="hint">Not editable: ${fixed.map((name, place) => html`${place ? ", " : ""}<code key=${name} dir="auto">${truncate(name, 100)}</code>`)}.</p>`}
    ${isFree(action) && (!whole || entries) && html`<p><button type="button" class="small" disabled=${disabled} onClick=${toggle}>${whole ? "Edit by field" : hasSecret("", action.args) ? "Edit as JSON, masked values are shown" : "Edit as JSON"}</button></p>`}
    ${result ? html`<${Diff} before=${action.args ?? {}} after=${result} title="What changes" />` : html`<p class="error">The arguments can’t be read yet, so the changes are not shown.</p>`}
  </section>`;
}

/** @type {Record<string, string>} */
const HELP = { number: "a number; its digits are sent as you write them", json: "JSON: a text needs quotation marks", string: "", boolean: "", choice: "" };

/** @param {{field: import("../../answer/args_model.js").ArgField, text: string, error: string | undefined, disabled: boolean, secret: boolean, set: (text: string) => void}} how */
function ArgEntry({ field, text, error, disabled, secret, set }) {
  const { name, kind, choices } = field, path = `args.${name}`;
  const [shown, show] = useState(false);
  const label = html`<code>${truncate(name, 200)}</code>`, how = { path, label, help: HELP[kind], error, required: false };
  const typed = (/** @type {Event} */ event) => set(/** @type {HTMLInputElement} */ (event.target).value);
  if (kind === "boolean") {
    return html`<${Labelled} ...${how} group=${true}><span class="radios">${["true", "false"].map((value) => html`<label key=${value} class="pickone">
      <input type="radio" name=${idOf(path)} value=${value} checked=${text === value} disabled=${disabled} onChange=${() => set(value)} /> ${value}</label>`)}</span><//>`;
  }
  const shared = { ...tied(path, error, false), disabled, value: text, onInput: typed, spellcheck: false, dir: "auto" };
  if (kind === "choice") return html`<${Labelled} ...${how}><select ...${shared}>${choices.map((one) => html`<option key=${one} value=${one}>${one}</option>`)}</select><//>`;
  if (kind === "number") return html`<${Labelled} ...${how}><input ...${shared} class="code" type="text" inputmode="decimal" autocomplete="off" /><//>`;
  if (kind === "json" && secret && !shown) {
    return html`<${Labelled} ...${how} help="It contains a masked value, which the editor shows."><span class="masked"><span class="mask" aria-label="hidden">••••••••</span>
      <button type="button" class="small" id=${idOf(path)} onClick=${() => show(true)}>Show and edit</button></span><//>`;
  }
  if (kind === "json") return html`<${Labelled} ...${how}><textarea ...${shared} class="code" dir="ltr" rows=${Math.min(10, text.split("\n").length + 1)}></textarea><//>`;
  return html`<${Labelled} ...${how}><${SecretInput} attributes=${shared} secret=${secret} /><//>`;
}
