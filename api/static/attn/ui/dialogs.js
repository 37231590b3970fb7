// Dialogs: snooze, shortcuts, keys, filters on a narrow screen. The `dialog` element keeps the focus inside and restores it.
import { dismiss } from "../commands/item_commands.js";
import { now } from "../clock.js";
import { page } from "../state/page_state.js";
import { formatTime, plural } from "../text/labels.js";
import { Answering, Help, Keys, Sessions, Terminals } from "./answering.js";
import { html, useEffect, useRef, useState } from "./dom.js";
import { Icon } from "./icons.js";
import { Filters } from "./sidebar.js";

/** @typedef {import("../state/store.js").State} State */

/** `firm`: a click beside it does not close it. @param {{title: string, id: string, firm?: boolean, children?: any}} how */
export function Dialog({ title, id, firm, children }) {
  const ref = useRef(/** @type {HTMLDialogElement | null} */ (null));
  useEffect(() => {
    const dialog = ref.current, before = document.activeElement;
    return () => {
      dialog?.close();
      if (before instanceof HTMLElement && before.isConnected) before.focus({ preventScroll: true });
    };
  }, []);
  // Opens the dialog again if the browser closed it although the page did not.
  useEffect(() => { if (ref.current && !ref.current.open) ref.current.showModal(); });
  const close = () => page.set({ dialog: null });
  const closed = () => { if (ref.current) close(); }; // the event may arrive when another dialog is open
  const cancel = (/** @type {Event} */ event) => { event.preventDefault(); close(); };
  return html`<dialog ref=${ref} id=${id} aria-labelledby=${`${id}-title`} onCancel=${cancel} onClose=${closed}
      onClick=${(/** @type {Event} */ event) => !firm && event.target === ref.current && close()}>
    <div class="inside">
      <header><h2 id=${`${id}-title`}>${title}</h2><button class="plain" aria-label="Close" onClick=${close}><${Icon} name="close" /></button></header>
      ${children}
    </div></dialog>`;
}

/** Returns the offered ends of a snooze with their labels. @param {Date} now @returns {[string, Date][]} */
export function snoozeTimes(now) {
  const at = (/** @type {number} */ days, /** @type {number} */ hour) => {
    const day = new Date(now);
    day.setDate(day.getDate() + days);
    day.setHours(hour, 0, 0, 0);
    return day;
  };
  const later = (/** @type {number} */ minutes) => new Date(now.getTime() + minutes * 60_000);
  const evening = at(0, 18);
  return [
    ["In 20 minutes", later(20)], ["In an hour", later(60)], ["In three hours", later(180)],
    ...(evening.getTime() > now.getTime() + 3_600_000 ? [/** @type {[string, Date]} */ (["This evening", evening])] : []),
    ["Tomorrow morning", at(1, 9)], ["Next Monday", at(((8 - now.getDay()) % 7) || 7, 9)],
  ];
}

/** Formats a time for an input of type `datetime-local`. @param {Date} time */
const local = (time) => new Date(time.getTime() - time.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);

/** @param {{ids: readonly string[]}} how */
function Snooze({ ids }) {
  const [problem, showProblem] = useState("");
  const input = useRef(/** @type {HTMLInputElement | null} */ (null));
  const until = (/** @type {Date} */ time) => {
    if (!(time.getTime() > now())) return showProblem("This time has passed. Choose a later one.");
    page.set({ dialog: null });
    dismiss(ids, time);
  };
  const choices = snoozeTimes(new Date(now())); // by the server's clock, which validates them
  return html`<${Dialog} title=${`Snooze ${plural(ids.length, "item")}`} id="snooze">
    <p class="hint">It leaves your list until then. Other users still see it.</p>
    <div class="choices">
      ${choices.map(([name, time], place) => html`<button key=${name} class="choice" autofocus=${place === 0} onClick=${() => until(time)} data-key=${place + 1}>
        <kbd>${place + 1}</kbd><span>${name}</span><small>${formatTime(time.toISOString(), { weekday: "short", hour: "numeric", minute: "2-digit" })}</small></button>`)}
    </div>
    <form onSubmit=${(/** @type {Event} */ event) => { event.preventDefault(); until(new Date(input.current?.value ?? "")); }}>
      <label>Or until <input type="datetime-local" ref=${input} required min=${local(new Date(now()))} aria-describedby="snooze-problem" /></label>
      <button class="button primary">Snooze</button>
    </form>
    <p class="problem" id="snooze-problem" role="alert">${problem}</p>
  <//>`;
}

/** @param {{state: State}} how */
export function Dialogs({ state }) {
  if (state.dialog === "snooze") return html`<${Snooze} ids=${state.snoozing} />`;
  if (state.dialog === "answers") return html`<${Answering} part="ManyAnswers" state=${state} />`;
  if (state.dialog === "help") return html`<${Dialog} title="Keyboard shortcuts" id="help"><${Help} part="ShortcutList" /><//>`;
  if (state.dialog === "keys") return html`<${Dialog} title="Keys of sources" id="keys" firm><${Keys} part="KeysCard" /><//>`;
  if (state.dialog === "sessions") return html`<${Dialog} title="My sessions" id="sessions"><${Sessions} part="SessionsCard" /><//>`;
  if (state.dialog === "terminal") {
    return html`<${Dialog} title="Let a terminal in?" id="terminal" firm><${Terminals} key=${state.terminal} part="TerminalCard" asked=${state.terminal} /><//>`;
  }
  if (state.dialog === "filters") return html`<${Dialog} title="Filters" id="filters"><${Filters} state=${state} /><//>`;
  return null;
}
