// Dialog that gives the same answer to several questions. It lists what each one is before anything is sent, and afterwards what
// happened to each.
import { isOpen, isPlain, openOptions, whyNot } from "../../answer/question.js";
import { needsSecondPress, optionTitle } from "../../answer/option_keys.js";
import { decideMany } from "../../commands/decisions.js";
import { findItem } from "../../commands/item_commands.js";
import { page } from "../../state/page_state.js";
import { plural, truncate } from "../../text/labels.js";
import { Dialog } from "../dialogs.js";
import { html, useEffect, useMemo, useState } from "../dom.js";
import { placeOf } from "../item/row.js";
import { Paged } from "../show_more.js";
import { Labelled, tied } from "./fields.js";
import { Json } from "./json_view.js";

/** @typedef {import("../../types").Item} Item */
/** @typedef {import("../../types").Option} Option */
/** @typedef {import("../../commands/decisions.js").BulkResult} BulkResult */

const LONG = 300, SHOWN = 50, SECOND_PRESS_MS = 400; // characters of a title, items listed at first, milliseconds between two presses
const MOST = 100; // questions that are answered at once

/** Returns the plain options that at least one of the items has, with the items that have it. @param {readonly Item[]} items */
export function commonOptions(items) {
  /** @type {Map<string, {option: Option, items: Item[]}>} */
  const found = new Map();
  for (const item of items) {
    for (const option of openOptions(item)) {
      if (!isPlain(item, option)) continue;
      const key = JSON.stringify([option.id, option.does, optionTitle(option)]), one = found.get(key) ?? { option, items: [] };
      one.items.push(item);
      found.set(key, one);
    }
  }
  return [...found].map(([key, one]) => ({ key, ...one })).sort((a, b) => b.items.length - a.items.length);
}

/** Returns why an item is left out, or "". @param {Item} item @param {import("../../types").Me | null} me */
const leftOut = (item, me) => (item.ask === undefined ? "it asks nothing" : !isOpen(item) ? "it is closed" : whyNot(item, me) && "it is not yours to decide");

/** @param {{state: import("../../state/store.js").State}} how */
export function ManyAnswers({ state }) {
  // The items as they were when the dialog opened: what is listed is what is sent.
  const all = useMemo(() => [...state.selected].map(findItem).filter((item) => item !== undefined), []);
  const mine = useMemo(() => all.filter((item) => !leftOut(item, state.me)), []), choices = useMemo(() => commonOptions(mine), []);
  const [chosen, choose] = useState(choices[0]?.key ?? "");
  const [comment, setComment] = useState(""), [armed, arm] = useState(0), [busy, setBusy] = useState(false), [problem, showProblem] = useState("");
  const [results, show] = useState(/** @type {BulkResult[] | null} */ (null));
  const choice = choices.find((one) => one.key === chosen), items = (choice?.items ?? []).slice(0, MOST);
  const others = all.filter((item) => !items.includes(item));
  const live = new Map(items.map((item) => [item.id, findItem(item.id)])), stale = items.filter((item) => live.get(item.id)?.digest !== item.digest || !isOpen(live.get(item.id) ?? item));
  useEffect(() => arm(0), [chosen]);
  if (results) return html`<${Results} results=${results} />`;
  const dangerous = choice !== undefined && items.some((item) => needsSecondPress(choice.option, item.ask?.action));
  const send = async () => {
    if (!choice || busy) return;
    if (dangerous && (!armed || performance.now() - armed < SECOND_PRESS_MS)) return void (armed || arm(performance.now()));
    setBusy(true);
    const answer = await decideMany(items, choice.option, choice.option.comment === "no" ? "" : comment.trim());
    setBusy(false);
    arm(0);
    if (answer.problem) showProblem(answer.problem);
    else show(answer.results);
  };
  const name = choice ? optionTitle(choice.option) : "";
  return html`<${Dialog} title=${`Answer ${plural(items.length, "question")}`} id="answers">
    ${choices.length === 0 ? html`<p>None of the selected items has an answer that can be given without a form. Open them one by one.</p>` : html`
      <fieldset class="entry"><legend>Answer</legend><span class="radios">${choices.map(({ key, option, items: those }) => html`<label key=${key} class="pickone">
        <input type="radio" name="answers-option" checked=${key === chosen} disabled=${busy} onChange=${() => choose(key)} /> <span><bdi>${truncate(optionTitle(option), LONG)}</bdi> <span class="count">${those.length}</span></span></label>`)}</span></fieldset>
      <ol class="each"><${Paged} of=${items} most=${SHOWN} one="question" end=${(/** @type {any} */ button) => html`<li>${button}</li>`} draw=${(/** @type {Item} */ item) => html`<li key=${item.id}><${Asked} item=${item} stale=${stale.includes(item)} /></li>`} /></ol>`}
    ${others.length > 0 && html`<details><summary>${plural(others.length, "selected item")} left out</summary><ul>${others.slice(0, SHOWN).map((item) => html`<li key=${item.id}><bdi>${truncate(item.title, LONG)}</bdi>: ${leftOut(item, state.me) || (choice?.items.includes(item) ? `more than ${MOST} at once` : "it has no such answer")}</li>`)}</ul></details>`}
    ${choice && choice.option.comment !== "no" && html`<${Labelled} path="many.comment" label="Comment" help="The same for each." error=${undefined} required=${false}>
      <textarea ...${tied("many.comment", undefined, false)} rows="1" dir="auto" disabled=${busy} value=${comment} onInput=${(/** @type {Event} */ event) => setComment(/** @type {HTMLTextAreaElement} */ (event.target).value)}></textarea><//>`}
    <p class="problem" role="alert">${problem}</p>
    ${choice && html`<button class=${`button answer ${choice.option.style === "danger" ? "danger" : "primary"} ${armed ? "armed" : ""}`} aria-disabled=${busy ? "true" : undefined} onClick=${send}>
      ${busy ? "Sending…" : `${armed ? "Press again: " : ""}${name} ${items.length === 1 ? "this one" : `all ${items.length}`}`}</button>`}
  <//>`;
}

/** What one question is. @param {{item: Item, stale: boolean}} how */
const Asked = ({ item, stale }) => html`<b dir="auto">${truncate(item.title, LONG)}</b>
  <span class="about">${placeOf(item) && html`<span dir="auto">${placeOf(item)}</span>`} ${item.ask?.action && html`<code dir="auto">${truncate(item.ask.action.name, LONG)}</code>`}
    ${item.ask?.action?.risk && html`<span class=${`badge risk-${item.ask.action.risk}`}>${item.ask.action.risk} risk</span>`}${item.ask?.action?.reversible === false && html`<span class="badge final">can’t be undone</span>`}</span>
  ${stale && html`<span class="error">It has changed or was decided since; it will be left as it is.</span>`}
  ${item.ask?.action?.args && Object.keys(item.ask.action.args).length > 0 && html`<${Json} value=${item.ask.action.args} label=${`Arguments of ${truncate(item.title, LONG)}`} />`}`;

/** @param {{results: BulkResult[]}} how */
const Results = ({ results }) => html`<${Dialog} title="What happened" id="answers">
  <ul class="each results" role="list">${results.map((one) => html`<li key=${one.id} class=${one.tone}><b dir="auto">${truncate(one.title, LONG)}</b><span>${one.result}</span></li>`)}</ul>
  <button class="button primary" autofocus onClick=${() => page.set({ dialog: null })}>Close</button>
<//>`;
