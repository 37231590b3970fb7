// The list "My decisions": what the user decided or may see, and what became of it.
import { optionDone } from "../../answer/option_keys.js";
import { isOwn, receiptPath, secondsToUndo, STATES } from "../../answer/outcome.js";
import { formatMoment, listed, short, sourceName, voter } from "../../answer/question.js";
import { now as serverNow } from "../../clock.js";
import { takeBack } from "../../commands/decisions.js";
import { ok, request } from "../../http.js";
import { page } from "../../state/page_state.js";
import { showToast } from "../../commands/item_commands.js";
import { fetchDecisions, fetchMoreDecisions, filterDecisions } from "../../state/decision_pages.js";
import { kindLabel, truncate } from "../../text/labels.js";
import { html, useClock, useEffect } from "../dom.js";
import { Icon } from "../icons.js";

/** @typedef {import("../../types").DecisionRow} DecisionRow */
/** @typedef {import("../../types").Me} Me */

const FILTERS = ["made", "sending", "applied", "refused", "undeliverable", "taken_back", "expired"];
const LONG = 300, REFRESH_MS = 5000; // characters of a title, and milliseconds between two looks at decisions under way

/** @type {Record<string, string>} */
const TONES = { made: "wait", sending: "wait", applied: "good", refused: "bad", undeliverable: "bad", unconfirmed: "bad", taken_back: "calm", expired: "calm" };

/** Opens the item of a decision. @param {DecisionRow} row */
async function open(row) {
  const answer = await request("GET", `/org/me/inbox/${encodeURIComponent(row.item)}`);
  if (ok(answer)) page.set({ openId: row.item, openItem: answer.data });
  else showToast(answer.status === 404 ? "The item is no longer stored, or it is no longer addressed to you." : "attn does not answer. Try again.", { tone: "bad" });
}

/** @param {{state: import("../../state/store.js").State}} how */
export function MyDecisions({ state }) {
  const { decisions, me } = state, now = useClock(serverNow, 1000);
  const underWay = decisions.rows.some((row) => row.state === "made" || row.state === "sending");
  useEffect(() => { if (!decisions.loaded && !decisions.loading && !decisions.failed) fetchDecisions(page); }, []);
  // Decisions change without a frame of the feed. Only the first page is fetched again.
  useEffect(() => {
    if (!underWay) return undefined;
    const timer = setInterval(() => {
      const { decisions: shown } = page.get();
      if (!document.hidden && !shown.loading && shown.rows.length <= 50) fetchDecisions(page);
    }, REFRESH_MS);
    return () => clearInterval(timer);
  }, [underWay]);
  const filter = (/** @type {Event} */ event) => filterDecisions(page, /** @type {HTMLSelectElement} */ (event.target).value);
  return html`<div class="scroll decision-list" tabIndex="-1" id="list">
    <header><h2>My decisions</h2><label>State <select value=${decisions.state} onChange=${filter}>
      <option value="">all</option>${FILTERS.map((name) => html`<option key=${name} value=${name}>${STATES[name]}</option>`)}</select></label></header>
    <ul role="list" aria-label="Decisions, newest first" aria-busy=${decisions.loading}>${decisions.rows.map((row) => html`<${Entry} key=${row.id} row=${row} me=${me} now=${now} opened=${state.openId === row.item} />`)}</ul>
    ${decisions.failed ? html`<p class="below" role="alert">The decisions are not available. <button class="link" onClick=${() => fetchDecisions(page)}>Try again</button></p>`
      : decisions.loading && !decisions.rows.length ? html`<p class="below" role="status">Loading…</p>`
        : !decisions.rows.length ? html`<p class="below">${decisions.state ? "No decision is in this state." : "You have decided nothing yet. Questions that you answer are listed here, with what became of them."}</p>`
          : decisions.next && html`<p class="below"><button class="button" disabled=${decisions.loading} onClick=${() => fetchMoreDecisions(page)}>Older decisions</button></p>`}
  </div>`;
}

/** @param {{row: DecisionRow, me: Me | null, now: number, opened: boolean}} how */
function Entry({ row, me, now, opened }) {
  const name = row.returned ?? row.state, names = (row.actors ?? []).map((actor) => voter(actor, me)), left = isOwn(row, me) ? secondsToUndo(row, now) : 0;
  const option = row.option && row.does ? [{ id: row.option, does: row.does, title: row.option_title }] : [];
  const did = row.option ? `${optionDone(row.option, row.does, option)}${row.edited?.length ? ` (${row.edited.length} changed)` : ""} by ${names.length ? listed(names) : "its time limit"}` : "nobody answered in time";
  return html`<li class=${opened ? "decision opened" : "decision"}>
    <button class="main" aria-current=${opened ? "true" : undefined} onClick=${() => open(row)}>
      <span class="kind"><${Icon} name=${kindLabel(row.kind).icon} /></span>
      <span class="about-it"><span class="title" dir="auto">${truncate(row.title ?? row.source_id, LONG)}</span>
        <span class="about"><bdi>${did}</bdi><span>${formatMoment(row.at, now)}</span><bdi>${sourceName(row)}</bdi></span>
        ${row.reason && html`<span class="reason" dir="auto">${short(row.reason)}</span>`}</span>
      <span class=${`badge ${TONES[name] ?? "calm"}`}>${STATES[name] ?? name}</span></button>
    <span class="row-of">${left > 0 && html`<button class="small" onClick=${() => takeBack([row.item]).then(() => fetchDecisions(page))}>Take back <span aria-hidden="true">${left} s</span></button>`}
      ${row.option && html`<a class="small" href=${receiptPath(row.item, row.id)} download=${`${row.id}.receipt.json`} aria-label=${`Receipt of ${truncate(row.title ?? row.source_id, LONG)}`}>Receipt</a>`}</span>
  </li>`;
}
