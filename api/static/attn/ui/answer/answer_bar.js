// Buttons of the answers, each with its key. On a narrow screen the bar is at the bottom, within reach of a thumb.
import { changes } from "../../answer/args_model.js";
import { needsSecondPress } from "../../answer/option_keys.js";
import { buttonText } from "../../answer/question.js";
import { shortcutsEnabled } from "../../shell/shortcuts.js";
import { plural } from "../../text/labels.js";
import { html } from "../dom.js";
import { announce, guard } from "./answer_state.js";

/** @typedef {import("../../types").Item} Item */
/** @typedef {import("../../types").Option} Option */
/** @typedef {import("./answer_state.js").AnswerState} AnswerState */

const MANY = 4; // answers beyond which the bar does not stay on screen: it would cover a phone

/** Reports that an input was ignored because the question had just changed, and brings the question into view. */
export function tooEarly() {
  announce("Not sent: the question has just appeared. Read it, then answer.");
  document.getElementById("asked")?.scrollIntoView({ block: "nearest" });
}

/**
 * Runs a press that was meant for the question on screen.
 * @param {string} question as the button was rendered
 * @param {() => void} act
 */
export const guarded = (question, act) => ({
  onPointerDown: () => guard.press(question),
  onClick: (/** @type {MouseEvent} */ event) => {
    const counts = event.detail === 0 ? guard.acceptsKey(question) : guard.acceptsClick(question);
    return counts ? act() : tooEarly();
  },
});

/** @param {readonly Option[]} options @param {Option} option */
function styleOf(options, option) {
  if (option.style === "danger") return "danger";
  const main = options.find((one) => one.style === "primary") ?? options.find((one) => ["approve", "respond", "acknowledge", "retry"].includes(one.does) && one.style !== "danger");
  return option.style === "primary" || option === main ? "primary" : "";
}

/** @param {{item: Item, options: readonly Option[], keys: Map<string, string | null>, answer: AnswerState, ready: boolean}} how */
export function AnswerBar({ item, options, keys, answer, ready }) {
  const { question, open, busy, press, isArmed, back } = answer, on = shortcutsEnabled();
  const shown = open ? [open] : options, args = open?.does === "edit" ? answer.read(open).args : null, edits = args ? changes(item.ask?.action?.args ?? {}, args).length : 0;
  const sending = (/** @type {Option} */ option) => (option.does !== "edit" ? `Send: ${buttonText(item, option)}` : `Send with ${edits ? plural(edits, "change") : "no change"}`);
  return html`<div class=${["answers", ready && "ready", shown.length > MANY && "many"].filter(Boolean).join(" ")} role="group" aria-label="Your answer">
    ${shown.map((option) => {
      const key = keys.get(option.id) ?? null, armed = isArmed(option);
      return html`<button key=${option.id} type="button" class=${["button answer", open && option.style !== "danger" ? "primary" : styleOf(options, option), armed && "armed"].filter(Boolean).join(" ")} data-option=${option.id} aria-disabled=${busy ? "true" : undefined}
          aria-keyshortcuts=${key && on && !open ? key : undefined} ...${guarded(question, () => press(option))}>
        <span dir="auto">${busy ? "Sending…" : armed ? `Press again: ${buttonText(item, option)}` : open ? sending(option) : buttonText(item, option)}</span>
        ${on && (open ? html`<kbd class="wide">Ctrl ↵</kbd>` : key && html`<kbd>${key}</kbd>`)}
        ${needsSecondPress(option, item.ask?.action) && !armed ? html`<span class="hidden"> (asks for a second press)</span>` : ""}</button>`;
    })}
    ${open && !answer.sole && html`<button type="button" class="button back" disabled=${busy} onClick=${back}>Back</button>`}
  </div>`;
}
