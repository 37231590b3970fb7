// Widgets of the overview. Each one gets the page's state, and shows a hint if it has no data.
import { now } from "../../clock.js";
import { request, explain, ok } from "../../http.js";
import { clusters, NO_FILTERS } from "../../state/filters.js";
import { knownItems, navigate } from "../../state/page_state.js";
import { BANDS } from "../../state/list_layout.js";
import { formatAge, truncate, isolate, kindLabel, plural, formatDuration } from "../../text/labels.js";
import { Bars, Columns, Ranges } from "./charts.js";
import { drawDecisions } from "./decisions.js";
import { html, useEffect, useState } from "../dom.js";
import { Icon } from "../icons.js";
import { placeOf } from "../item/row.js";

/** @typedef {import("../../state/store.js").State} State */

// Milliseconds between two requests of the history while the page is visible. The first pauses are shorter, and each is
// twice the one before: ClickHouse may still be loading when a new installation shows its first page.
const FIRST_REFRESH_MS = 5_000, REFRESH_MS = 60_000;
const MOST = 8, PINS = 60, LONG = 200; // bars of one chart, clusters shown, characters of a name
const SHARED_MS = 2000; // milliseconds within which widgets share one response

/** Truncates and isolates foreign text. @param {string} text */
const short = (text) => isolate(truncate(text, LONG));

/** @type {Map<string, {at: number, answer: Promise<import("../../http.js").Answer>}>} */
const asked = new Map();

/** Requests a path once for all widgets that need it within SHARED_MS. @param {string} path */
function shared(path) {
  const last = asked.get(path);
  if (last && performance.now() - last.at < SHARED_MS) return last.answer;
  const answer = request("GET", path);
  asked.set(path, { at: performance.now(), answer });
  return answer;
}

/**
 * Returns the response of a path; requests it when the path changes, and again up to once a minute. Without a path there is no request.
 * @param {string} path
 * @param {unknown} [of] requested again when this changes
 */
function useAnswer(path, of) {
  const [answer, show] = useState(/** @type {import("../../http.js").Answer | null} */ (null));
  useEffect(() => {
    let there = true, pause = FIRST_REFRESH_MS, timer = 0;
    const fetch = async () => {
      timer = setTimeout(fetch, pause);
      pause = Math.min(REFRESH_MS, pause * 2);
      if (document.hidden || !path) return;
      const found = await shared(path);
      if (there) show(found);
    };
    fetch();
    return () => { there = false; clearTimeout(timer); };
  }, [path, of]);
  return answer;
}

/** @param {{answer: import("../../http.js").Answer | null, say?: string}} how */
const Missing = ({ answer, say }) => html`<p class="hint">${answer === null ? "Loading…" : answer.status === 503 || answer.status === 404
  ? "The history is unavailable; the inbox works without it." : say ?? explain(answer)}</p>`;

/** @param {{value: string, set: (window: string) => void, label: string}} how */
const Window = ({ value, set, label }) => html`<span class="segments" role="group" aria-label=${label}>
  ${["24h", "7d", "30d"].map((one) => html`<button key=${one} class="small" aria-pressed=${value === one} onClick=${() => set(one)}>${one}</button>`)}</span>`;

/** @param {{state: State}} how */
export function Momentum({ state }) {
  const [window, set] = useState("24h");
  const live = state.inbox.activity;
  const answer = useAnswer(window === "24h" ? "" : `/org/me/activity?window=${window}`, live);
  const found = window === "24h" ? live : answer && ok(answer) ? answer.data : null;
  return html`<${Window} value=${window} set=${set} label="Window of the momentum" />
    ${found === null ? html`<${Missing} answer=${answer} />` : html`
      <dl class="numbers">${[["Sessions completed", found.sessions_completed], ["Plans approved", found.plans_approved], ["Actions resolved", found.actions_resolved]]
        .map(([name, value]) => html`<div key=${name}><dd>${value.toLocaleString()}</dd><dt>${name}</dt></div>`)}</dl>
      <ol class="recent">${found.recent.slice(0, 6).map((/** @type {import("../../types").Done} */ done) => html`<li key=${done.type + done.at + done.item}>
        <b title=${done.cluster && short(done.cluster)} dir="auto">${short(done.title ?? done.session_id ?? done.case_id ?? done.kind)}</b>
        <small>${[done.type.replace(".", " "), done.by_user_id && short(done.by_user_id), `${formatAge(done.at, now())} ago`].filter(Boolean).join(" · ")}</small></li>`)}
        ${!found.recent.length && html`<li class="hint">Nothing was completed in this period.</li>`}</ol>`}`;
}

/** @param {{state: State}} how */
export function Drafts({ state }) {
  const { drafts } = state.inbox;
  if (!drafts.length) return html`<p class="hint">You have no drafts in progress.</p>`;
  return html`<ul class="drafts" role="list">${drafts.slice(0, 8).map((draft) => html`<li key=${draft.draft_id}>
    <b dir="auto">${truncate(draft.title ?? draft.draft_id, LONG)}</b>
    <span class="about">${placeOf(draft) && html`<span>${placeOf(draft)}</span>`}<span>touched ${formatAge(draft.last_touched_at, now())} ago</span>
      ${draft.has_ai_edits && html`<span class="badge ai">AI edits</span>`}
      ${draft.co_editors.length > 0 && html`<span>with ${draft.co_editors.slice(0, 3).map((one) => short(one.name ?? one.id)).join(", ")}</span>`}</span></li>`)}</ul>`;
}

/** @param {{state: State}} how */
export function Kinds({ state }) {
  const rows = Object.entries(state.inbox.counts.by_kind).sort((a, b) => b[1] - a[1]).map(([name, value]) => ({ name, label: kindLabel(name).name, value }));
  if (!rows.length) return html`<p class="hint">Nothing is open.</p>`;
  return html`<${Bars} rows=${rows.slice(0, MOST)} pick=${(/** @type {string} */ name) => navigate({ view: "open", filters: { ...NO_FILTERS, kind: name } })} />`;
}

/** @param {{state: State}} how */
export function Clusters({ state }) {
  const pins = state.inbox.preferences.pinned_clusters, items = knownItems(state);
  if (!pins.length) return html`<p class="hint">Pin a cluster with its star: its items then come first in their band.</p>`;
  return html`<ul class="pins" role="list">${clusters(items, pins).filter((one) => one.pinned).slice(0, PINS).map(({ name, count }) => {
    const mine = items.filter((item) => item.cluster === name || item.clusters?.includes(name));
    return html`<li key=${name}><button class="plain" onClick=${() => navigate({ view: "open", filters: { ...NO_FILTERS, cluster: name } })}>
      <${Icon} name="star" size="15" /><b dir="auto">${truncate(name, LONG)}</b><span>${plural(count, "item")}</span>
      <span class="dots">${BANDS.map((band) => { const some = mine.filter((item) => item.band === band).length; return some > 0 && html`<i key=${band} class=${band} title=${`${some} ${band}`}>${some}</i>`; })}</span></button></li>`;
  })}</ul>`;
}

/** The widgets that share one answer. @param {(found: any, window: string) => any} draw */
const insight = (draw) => function Insight() {
  const [window, set] = useState("24h");
  const answer = useAnswer(`/org/me/insights?window=${window}`);
  return html`<${Window} value=${window} set=${set} label="Window of the insights" />
    ${answer && ok(answer) ? draw(answer.data, window) : html`<${Missing} answer=${answer} />`}`;
};

export const Flow = insight((found) => {
  const add = (/** @type {"opened" | "closed"} */ what) => found.times.map((/** @type {string} */ _, /** @type {number} */ step) =>
    found.kinds.reduce((/** @type {number} */ sum, /** @type {any} */ flow) => sum + flow.series[what][step], 0));
  return html`<${Columns} times=${found.times} up=${add("opened")} down=${add("closed")} names=${["Opened", "Closed"]} hourly=${found.step_seconds < 86400} />`;
});

export const Times = insight((found) => {
  const rows = found.kinds.filter((/** @type {any} */ flow) => flow.median_seconds !== undefined)
    .map((/** @type {any} */ flow) => ({ name: flow.kind, label: kindLabel(flow.kind).name, median: flow.median_seconds, p90: flow.p90_seconds }));
  return rows.length ? html`<${Ranges} rows=${rows.slice(0, MOST)} /><p class="hint">Number: time within which half were closed (median). Pale bar: 90 %.</p>`
    : html`<p class="hint">Nothing was closed in this period.</p>`;
});

export const People = insight((found) => found.people.length
  ? html`<ul class="people" role="list">${found.people.slice(0, 8).map((/** @type {any} */ one) => html`<li key=${one.user_id}><b dir="auto">${truncate(one.user_id, LONG)}</b><span>${plural(one.closed, "item")}</span>
      ${one.median_seconds !== undefined && html`<small>half within ${formatDuration(one.median_seconds)}</small>`}</li>`)}</ul>`
  : html`<p class="hint">No user closed an item in this period.</p>`);

export const Decisions = insight(drawDecisions);

/** `managing`: only for the roles that the edge allows to see insights. @type {Record<string, {title: string, part: any, managing?: boolean}>} */
export const PARTS = {
  momentum: { title: "Momentum", part: Momentum }, drafts: { title: "Recent drafts", part: Drafts },
  flow: { title: "Opened and closed", part: Flow, managing: true }, kinds: { title: "Open by kind", part: Kinds },
  clusters: { title: "Pinned clusters", part: Clusters }, times: { title: "Time to resolve", part: Times, managing: true },
  people: { title: "Who resolves", part: People, managing: true }, decisions: { title: "Decisions", part: Decisions, managing: true },
};
