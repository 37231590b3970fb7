// Snooze, cheat sheet, filters on a phone: dialogs of the browser's own, which keep the focus in and give it back.
import { dismiss } from "../commands/item_commands.js";
import { now } from "../clock.js";
import { page } from "../state/page_state.js";
import { shortcutsEnabled, setShortcutsEnabled, SHORTCUTS } from "../shell/keyboard.js";
import { formatTime, plural } from "../text/labels.js";
import { html, useEffect, useRef, useState } from "./dom.js";
import { Icon } from "./icons.js";
import { Filters } from "./sidebar.js";

/** @typedef {import("../state/store.js").State} State */

/** @param {{title: string, id: string, children?: any}} how */
function Dialog({ title, id, children }) {
  const place = useRef(/** @type {HTMLDialogElement | null} */ (null));
  useEffect(() => {
    const dialog = place.current, before = document.activeElement;
    return () => {
      dialog?.close();
      if (before instanceof HTMLElement && before.isConnected) before.focus({ preventScroll: true });
    };
  }, []);
  // Again, should the browser have closed it while the page did not mean to.
  useEffect(() => { if (place.current && !place.current.open) place.current.showModal(); });
  const close = () => page.set({ dialog: null });
  const closed = () => { if (place.current) close(); }; // it may be heard when this dialog has gone and another is there
  const cancel = (/** @type {Event} */ event) => { event.preventDefault(); close(); };
  return html`<dialog ref=${place} id=${id} aria-labelledby=${`${id}-title`} onCancel=${cancel} onClose=${closed}
      onClick=${(/** @type {Event} */ event) => event.target === place.current && close()}>
    <div class="inside">
      <header><h2 id=${`${id}-title`}>${title}</h2><button class="plain" aria-label="Close" onClick=${close}><${Icon} name="close" /></button></header>
      ${children}
    </div></dialog>`;
}

/** @param {Date} now @returns {[string, Date][]} */
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

/** @param {Date} time as an input of local time wants it */
const local = (time) => new Date(time.getTime() - time.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);

/** @param {{ids: readonly string[]}} how */
function Snooze({ ids }) {
  const [problem, complain] = useState("");
  const input = useRef(/** @type {HTMLInputElement | null} */ (null));
  const until = (/** @type {Date} */ time) => {
    if (!(time.getTime() > now())) return complain("This time has passed. Choose a later one.");
    page.set({ dialog: null });
    dismiss(ids, time);
  };
  const choices = snoozeTimes(new Date(now())); // by the clock that judges them
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

function Help() {
  const [on, turn] = useState(shortcutsEnabled());
  return html`<${Dialog} title="Keyboard shortcuts" id="help">
    <dl class="sheet">${SHORTCUTS.map(([keys, what]) => html`<div key=${what}><dt>${keys.map((key) => html`<kbd key=${key}>${key}</kbd>`)}</dt><dd>${what}</dd></div>`)}</dl>
    <label class="switch"><input type="checkbox" checked=${on} onChange=${() => { setShortcutsEnabled(!on); turn(!on); }} /> Single-key shortcuts are on</label>
  <//>`;
}

/** @param {{state: State}} how */
export function Dialogs({ state }) {
  if (state.dialog === "snooze") return html`<${Snooze} ids=${state.snoozing} />`;
  if (state.dialog === "help") return html`<${Help} />`;
  if (state.dialog === "filters") return html`<${Dialog} title="Filters" id="filters"><${Filters} state=${state} /><//>`;
  return null;
}
