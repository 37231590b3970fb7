// Fields of a form: labelled, described, with the error of each.
import { limitsOf } from "../../answer/form_model.js";
import { html, useState } from "../dom.js";

/** @typedef {import("../../answer/form_model.js").Field} Field */
/** @typedef {import("../../answer/form_model.js").Entry} Entry */

const RADIOS = 6; // choices up to which all are on screen

/** Returns the element id of a path such as `form.reason`. @param {string} path */
export const idOf = (path) => `answer-${path.replace(/[^\w-]/gu, (sign) => `_${(sign.codePointAt(0) ?? 0).toString(16)}_`)}`;

/** Label, help and error around an input. @param {{path: string, label: any, help: string, error: string | undefined, required: boolean, group?: boolean, children?: any}} how */
export function Labelled({ path, label, help, error, required, group = false, children }) {
  const id = idOf(path);
  const text = html`<span class="name" dir="auto">${label}</span>${required ? html` <span class="needed">required</span>` : ""}`;
  const notes = html`<span class="hint" id=${`${id}-help`} dir="auto">${help}</span><span class="error" id=${`${id}-error`}>${error ?? ""}</span>`;
  return group
    ? html`<fieldset class=${error ? "entry wrong" : "entry"} id=${id} tabIndex="-1" aria-describedby=${`${id}-help ${id}-error`}><legend>${text}</legend>${children}${notes}</fieldset>`
    : html`<div class=${error ? "entry wrong" : "entry"}><label for=${id}>${text}</label>${children}${notes}</div>`;
}

/** Returns the attributes that tie an input to its help and its error. @param {string} path @param {string | undefined} error @param {boolean} required */
export const tied = (path, error, required) => ({
  id: idOf(path), "aria-invalid": error ? "true" : undefined, "aria-required": required ? "true" : undefined, "aria-describedby": `${idOf(path)}-help ${idOf(path)}-error`,
});

/** @param {{field: Field, entry: Entry, error: string | undefined, disabled: boolean, set: (entry: Entry) => void}} how */
export function FormField({ field, entry, error, disabled, set }) {
  const { name, kind, choices, required, schema } = field, path = `form.${name}`;
  const zone = kind === "date-time" ? `in your time zone, ${Intl.DateTimeFormat().resolvedOptions().timeZone}` : "";
  const how = { path, label: field.label, help: [field.help, limitsOf(field), zone].filter(Boolean).join(" · "), error, required };
  const typed = (/** @type {Event} */ event) => set(/** @type {HTMLInputElement} */ (event.target).value);
  if (kind === "boolean" || (kind === "choice" && choices.length <= RADIOS)) {
    const all = [...(kind === "boolean" ? [{ value: "true", label: "Yes" }, { value: "false", label: "No" }] : choices), ...(required ? [] : [{ value: "", label: "No answer" }])];
    return html`<${Labelled} ...${how} group=${true}><span class="radios">${all.map(({ value, label }) => html`<label key=${value} class="pickone">
      <input type="radio" name=${idOf(path)} value=${value} checked=${entry === value} disabled=${disabled} onChange=${() => set(value)} /> <span dir="auto">${label}</span></label>`)}</span><//>`;
  }
  if (kind === "multi") {
    const chosen = /** @type {readonly string[]} */ (entry);
    return html`<${Labelled} ...${how} group=${true}><span class="radios long">${choices.map(({ value, label }) => html`<label key=${value} class="pickone">
      <input type="checkbox" value=${value} checked=${chosen.includes(value)} disabled=${disabled}
        onChange=${() => set(chosen.includes(value) ? chosen.filter((one) => one !== value) : [...chosen, value])} /> <span dir="auto">${label}</span></label>`)}</span><//>`;
  }
  const shared = { ...tied(path, error, required), disabled, value: entry, onInput: typed, dir: "auto" };
  if (kind === "choice") {
    return html`<${Labelled} ...${how}><select ...${shared}>
      <option value="">${required ? "Choose…" : "No answer"}</option>${choices.map(({ value, label }) => html`<option key=${value} value=${value}>${label}</option>`)}</select><//>`;
  }
  if (kind === "text") return html`<${Labelled} ...${how}><textarea ...${shared} rows=${String(entry).length > 120 || (schema.maxLength ?? 0) > 400 ? 4 : 2}></textarea><//>`;
  const types = { line: "text", email: "email", uri: "url", date: "date", "date-time": "datetime-local", number: "text", integer: "text" };
  // `type="number"` would drop digits.
  const inputmode = kind === "integer" ? "numeric" : kind === "number" ? "decimal" : undefined;
  return html`<${Labelled} ...${how}><input ...${shared} type=${types[kind]} inputmode=${inputmode} autocomplete="off" step=${kind === "date-time" ? "1" : undefined} /><//>`;
}

/** A text that may be a secret, masked until it is shown. @param {{attributes: Record<string, any>, secret: boolean}} how */
export function SecretInput({ attributes, secret }) {
  const [shown, show] = useState(false), text = String(attributes.value);
  if (!secret) return html`<textarea ...${attributes} rows=${text.length > 60 || text.includes("\n") ? 3 : 1}></textarea>`;
  return html`<span class="masked"><input ...${attributes} type=${shown ? "text" : "password"} autocomplete="off" />
    <button type="button" class="small" aria-pressed=${shown} onClick=${() => show(!shown)}>${shown ? "Hide" : "Show"}</button></span>`;
}
