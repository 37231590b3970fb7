// What is asked and what will happen: action, arguments, risk, who asks, until when, who decides, votes so far.
import { decidersText, formatMoment, quorumText, short, sourceName, voteLines } from "../../answer/question.js";
import { optionTitle } from "../../answer/option_keys.js";
import { formatDuration, formatTime, truncate } from "../../text/labels.js";
import { html } from "../dom.js";
import { LongText } from "../show_more.js";
import { Json } from "./json_view.js";

/** @typedef {import("../../types").Item} Item */
/** @typedef {import("../../types").Me} Me */

const LONG = 600; // characters of a comment, at first
const RISKS = ["low", "medium", "high", "critical"];

/** The action that runs if it is approved. @param {{action: import("../../types").Action}} how */
export const Action = ({ action }) => html`<section class=${`action risk-${action.risk ?? "none"}`} aria-label="What will be done">
  <p class="will">This will run <code class="command" dir="auto">${truncate(action.name, LONG)}</code>${action.args && Object.keys(action.args).length ? html` with` : html` without arguments`}</p>
  ${(action.risk || action.reversible !== undefined) && html`<p class="consequence">
    ${action.risk && html`<span class="meter" aria-hidden="true">${RISKS.map((step, place) => html`<i key=${step} class=${place <= RISKS.indexOf(action.risk ?? "low") ? "on" : ""}></i>`)}</span> <b>${action.risk} risk</b>`}
    ${action.reversible === false ? html`<b class="final">It can’t be undone.</b>` : action.reversible === true ? html`<span>It can be undone.</span>` : null}</p>`}
  ${action.args && Object.keys(action.args).length > 0 && html`<${Json} value=${action.args} label=${`Arguments of ${truncate(action.name, 100)}`} />`}
</section>`;

/** Returns until when the question is open and what happens then. @param {Item} item @param {number} now */
function until({ ask }, now) {
  if (!ask?.expires_at) return null;
  const left = (Date.parse(ask.expires_at) - now) / 1000, taken = ask.options.find((option) => option.id === ask.on_expiry);
  const then = taken ? html`“<bdi>${short(optionTitle(taken))}</bdi>” is taken` : "it expires without an answer";
  return html`<span class=${left < 900 ? "soon" : ""} title=${formatTime(ask.expires_at)}>${formatMoment(ask.expires_at, now)}${left > 0 ? `, in ${formatDuration(left)}` : ""}</span>; then ${then}`;
}

/** @param {{item: Item, me: Me | null, now: number}} how */
export function Terms({ item, me, now }) {
  const quorum = item.ask?.quorum?.approve ?? 1, sender = item.sender_name ?? item.sender_id, deciders = decidersText(item, me);
  /** @type {[string, any][]} */
  const rows = [
    ["Asked by", html`${sender ? html`<bdi>${short(sender)}</bdi> · ` : ""}<bdi>${sourceName(item)}</bdi>`],
    ["Until", until(item, now)],
    ["Decided by", deciders && html`<bdi>${deciders}</bdi>${quorum > 1 ? `; ${quorum} different people must agree` : ""}`],
    ["Goes out", item.ask?.batch && "together with the other questions of its batch, when all are answered"],
  ];
  return html`<dl class="terms">${rows.filter(([, value]) => value).map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;
}

/** The votes so far. @param {{item: Item, me: Me | null, now: number}} how */
export function Votes({ item, me, now }) {
  const lines = voteLines(item, me, now), counted = quorumText(item);
  if (!lines.length) return null;
  return html`<section class="vote-list" aria-label="Votes so far">
    <p><b>${counted ? `${counted} votes` : "Votes"}:</b> ${lines.map((line, place) => html`${place ? "; " : ""}<bdi key=${line.user}>${line.text}</bdi>`)}.</p>
    ${lines.filter((line) => line.comment).map((line) => html`<blockquote key=${line.user} dir="auto"><${LongText} text=${line.comment} most=${LONG} /></blockquote>`)}
  </section>`;
}
