// What a person fills in: form, changed arguments, comment; and what they had typed for a question that ended.
import { fieldsOf } from "../../answer/form_model.js";
import { argFields } from "../../answer/args_model.js";
import { formOf, isPlain } from "../../answer/question.js";
import { stringify } from "../../exact.js";
import { html, useMemo, useRef, useState } from "../dom.js";
import { ArgsEditor } from "./args_editor.js";
import { tooEarly } from "./answer_bar.js";
import { announce, guard } from "./answer_state.js";
import { FormField, Labelled, tied } from "./fields.js";

/** @typedef {import("../../types").Item} Item */
/** @typedef {import("../../types").Option} Option */
/** @typedef {import("../../answer/drafts.js").Draft} Draft */
/** @typedef {import("./answer_state.js").AnswerState} AnswerState */

/** @param {{item: Item, options: readonly Option[], answer: AnswerState, commenting: boolean, comment: () => void}} how */
export function Compose({ item, options, answer, commenting, comment }) {
  const { draft, errors, open, busy, change, problem, others, signIn } = answer;
  const fields = useMemo(() => (open ? fieldsOf(formOf(item, open)) : []), [open, item.ask]);
  const takes = open ? open.comment !== "no" : options.some((option) => option.comment !== "no");
  const wanted = takes || Boolean(draft.comment) || errors.comment;
  const shown = commenting || Boolean(draft.comment) || Boolean(errors.comment) || open?.comment === "required" || Boolean(open && isPlain(item, { ...open, comment: "optional" }));
  const submit = (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || !open) return;
    event.preventDefault();
    if (event.repeat) return;
    if (guard.acceptsKey(answer.question)) answer.press(open);
    else tooEarly();
  };
  return html`<div class="compose" onKeyDown=${submit}>
    ${(problem || others.length > 0) && html`<div class="notice bad" role="alert"><p>${problem} ${signIn && html`<a href=${signIn}>Sign in again</a>`}</p>${others.length > 0 && html`<ul>${others.map((text) => html`<li key=${text}>${text}</li>`)}</ul>`}</div>`}
    ${fields.map((field) => html`<${FormField} key=${field.name} field=${field} entry=${Object.hasOwn(draft.form, field.name) ? draft.form[field.name] : field.initial}
      error=${errors[`form.${field.name}`]} disabled=${busy} set=${(/** @type {any} */ entry) => change({ form: { ...draft.form, [field.name]: entry } })} />`)}
    ${open?.does === "edit" && item.ask?.action && html`<${ArgsEditor} action=${item.ask.action} draft=${draft} errors=${errors} disabled=${busy} change=${change} result=${answer.read(open).args} />`}
    ${wanted && (shown ? html`<${Labelled} path="comment" label="Comment" help="Everybody who sees the item can read it, and its source gets it." error=${errors.comment} required=${open?.comment === "required"}>
        <textarea ...${tied("comment", errors.comment, open?.comment === "required")} rows="2" dir="auto" disabled=${busy} value=${draft.comment}
          onInput=${(/** @type {Event} */ event) => change({ comment: /** @type {HTMLTextAreaElement} */ (event.target).value })}></textarea><//>`
      : html`<p><button type="button" class="small" onClick=${comment}>Add a comment <kbd>c</kbd></button></p>`)}
  </div>`;
}

/** Returns what was typed as lines `name: text`. @param {Item} item @param {Draft} draft */
export function typedText(item, draft) {
  const option = item.ask?.options.find((one) => one.id === draft.option);
  const labels = new Map(fieldsOf(option ? formOf(item, option) : item.ask?.form).map((field) => [field.name, field.label]));
  const lines = Object.entries(draft.form).filter(([, entry]) => entry.length).map(([name, entry]) => `${labels.get(name) ?? name}: ${Array.isArray(entry) ? entry.join(", ") : entry}`);
  const old = new Map(item.ask?.action ? argFields(item.ask.action).map((field) => [field.name, field.initial]) : []);
  const args = draft.json !== null ? [`Arguments: ${draft.json}`] : Object.entries(draft.args).filter(([name, text]) => text !== old.get(name)).map(([name, text]) => `${name}: ${text}`);
  return [...lines, ...args, ...(draft.comment.trim() ? [labels.size || args.length ? `Comment: ${draft.comment}` : draft.comment] : [])].join("\n");
}

/** The typed text of a question that ended or changed, to read and copy. @param {{text: string, why: string, forget?: () => void}} how */
export function KeptText({ text, why, forget }) {
  const [gone, hide] = useState(false);
  const box = useRef(/** @type {HTMLTextAreaElement | null} */ (null));
  if (!text || gone) return null;
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      box.current?.select(); // not allowed, or not a secure context
      document.execCommand("copy");
    }
    announce("Copied.");
  };
  return html`<section class="kept" aria-label="Your text"><p><b>${why}</b></p>
    <textarea ref=${box} readOnly rows=${Math.min(8, text.split("\n").length + 1)} dir="auto" aria-label="Your text" value=${text}></textarea>
    <p class="row-of"><button type="button" class="small" onClick=${copy}>Copy</button>
      ${forget && html`<button type="button" class="small" onClick=${() => { hide(true); forget(); }}>Discard</button>`}</p></section>`;
}

/** Returns a draft as text even if the item asks something else by now. @param {Draft} draft */
export const draftText = (draft) => typedText(/** @type {any} */ ({ ask: undefined }), draft) || stringify(draft.form);
