// Events of the item's case, newest first, from the history.
import { request, ok } from "../../http.js";
import { formatTime, truncate, isolate, formatDuration } from "../../text/labels.js";
import { html, useEffect, useState } from "../dom.js";

/** @typedef {{events: any[], next: string | null, problem: string, loading: boolean}} Past */

/** @param {{case: string, revision: number}} how */
export function History(how) {
  const id = how.case;
  const [past, show] = useState(/** @type {Past} */ ({ events: [], next: null, problem: "", loading: true }));
  /** @param {string | null} next @param {any[]} before @param {() => boolean} there */
  const load = async (next, before, there) => {
    const query = next ? `?next=${encodeURIComponent(next)}` : "";
    const answer = await request("GET", `/cases/${encodeURIComponent(id)}/history${query}`);
    if (!there()) return;
    if (ok(answer)) {
      const found = answer.data.events;
      return show({ events: [...before, ...found], next: answer.data.next ?? null, problem: "", loading: false });
    }
    const problem = answer.status === 404 ? "No event of this case is recorded yet." : "The history is unavailable; the inbox works without it.";
    show({ events: before, next: null, problem, loading: false });
  };
  useEffect(() => {
    let there = true;
    load(null, [], () => there);
    return () => { there = false; };
  }, [id, how.revision]);
  return html`<section class="block" aria-labelledby="history-title" aria-busy=${past.loading}>
    <h3 id="history-title">History of the case</h3>
    ${past.problem && html`<p class="hint">${past.problem} ${past.problem.startsWith("The") && html`<button class="link" onClick=${() => load(null, [], () => true)}>Try again</button>`}</p>`}
    ${!past.loading && !past.problem && !past.events.length && html`<p class="hint">No event of this case is recorded yet.</p>`}
    <ol class="timeline">
      ${past.events.map((event, place) => html`<li key=${place}>
        <time dateTime=${event.at}>${formatTime(event.at)}</time>
        <span><b>${what(event)}</b> ${about(event)}</span></li>`)}
    </ol>
    ${past.next && html`<button class="button" onClick=${() => load(past.next, past.events, () => true)}>Earlier</button>`}
  </section>`;
}

const LONG = 300; // characters of a name

/** Truncates and isolates foreign text. @param {unknown} text */
const short = (text) => isolate(truncate(String(text), LONG));

/** Returns type and state of an event. @param {any} event */
function what({ type, state }) {
  const words = short(String(type).replaceAll("_", " "));
  return state ? `${words} to ${short(state)}` : words;
}

/** Returns answer, title, cluster, user, reason and duration of an event. @param {any} event */
function about(event) {
  return [
    event.option && `“${short(event.option)}” to`, event.title && `“${short(event.title)}”`, event.cluster && `on ${short(event.cluster)}`,
    event.actor && `by ${short(event.actor)}`, event.seconds_open !== undefined && `after ${formatDuration(event.seconds_open)}`,
    event.reason && `because ${short(event.reason)}`,
  ].filter(Boolean).join(" ");
}
