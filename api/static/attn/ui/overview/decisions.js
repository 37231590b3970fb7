// The overview's card about decisions: how many, how long they took, what came back, who decided.
import { formatDuration, isolate, kindLabel, plural, truncate } from "../../text/labels.js";
import { html } from "../dom.js";
import { Ranges } from "./charts.js";

const MOST = 8, REASONS = 3, LONG = 200; // kinds and people, reasons shown, characters of a name

/** Truncates and isolates foreign text. @param {string} text */
const short = (text) => isolate(truncate(text, LONG));

/** @param {number} share */
const percent = (share) => `${Math.round(100 * share)} %`;

/** A duration, or a dash without decisions. @param {number | undefined} seconds */
const time = (seconds) => (seconds === undefined ? "–" : formatDuration(seconds));

/**
 * What did not go the plain way, such as `2 refused`.
 * @param {any} found
 * @returns {string[]}
 */
function exceptions(found) {
  return [["expired", found.expired], ["taken back", found.taken_back], ["refused", found.refused], ["not delivered", found.undeliverable],
    ["not confirmed", found.unconfirmed]].filter(([, count]) => count > 0).map(([name, count]) => `${count.toLocaleString()} ${name}`);
}

/** @param {any} answer response of GET /org/me/insights */
export function drawDecisions({ decisions: found }) {
  const came = exceptions(found), kinds = found.kinds.filter((/** @type {any} */ kind) => kind.median_seconds_to_decide !== undefined);
  if (!found.made && !came.length) return html`<p class="hint">Nothing was decided in this period.</p>`;
  return html`
    <dl class="numbers">${[["Decided", found.made.toLocaleString()], ["Half decided within", time(found.median_seconds_to_decide)], ["Half took effect within", time(found.median_seconds_to_apply)]]
      .map(([name, value]) => html`<div key=${name}><dd>${value}</dd><dt>${name}</dt></div>`)}</dl>
    ${found.rubber_stamps > 0 && html`<p class="hint">${percent(found.rubber_stamps)} decided without opening the item, or within 3 s of it.</p>`}
    ${came.length > 0 && html`<p class="hint">${came.join(" · ")}</p>`}
    ${found.reasons.length > 0 && html`<ul class="people" role="list">${found.reasons.slice(0, REASONS).map((/** @type {any} */ one) => html`<li key=${one.state + one.reason}>
      <b dir="auto">${one.reason ? short(one.reason) : "no reason given"}</b><small>${one.count.toLocaleString()} ${one.state}</small></li>`)}</ul>`}
    ${kinds.length > 0 && html`<${Ranges} rows=${kinds.slice(0, MOST).map((/** @type {any} */ kind) => ({ name: kind.kind, label: kindLabel(kind.kind).name, median: kind.median_seconds_to_decide, p90: kind.p90_seconds_to_decide }))} />
      <p class="hint">Number: time within which half were decided (median). Pale bar: 90 %.</p>`}
    ${found.people.length > 0 && html`<ul class="people" role="list">${found.people.slice(0, MOST).map((/** @type {any} */ one) => html`<li key=${one.user_id}><b dir="auto">${short(one.user_id)}</b>
      <span>${one.made ? plural(one.made, "decision") : plural(one.votes, "vote")}</span>
      <small>${[one.median_seconds_to_decide !== undefined && `half within ${formatDuration(one.median_seconds_to_decide)}`, one.rubber_stamps > 0 && `${percent(one.rubber_stamps)} unread`].filter(Boolean).join(" · ")}</small></li>`)}</ul>`}`;
}
