// Detail view of the open item.
import { dismiss, setState, resolve, restore } from "../../commands/item_commands.js";
import { linkTo } from "../../text/links.js";
import { isDismissed, navigate } from "../../state/page_state.js";
import { formatAge, formatTime, truncate, due, REMOVAL_REASONS, isolate, kindLabel, MANAGED, plural, explainRank } from "../../text/labels.js";
import { Answering } from "../answering.js";
import { Body } from "./body.js";
import { html, useClock, useEffect, useMemo, useRef } from "../dom.js";
import { History } from "./case_history.js";
import { Icon } from "../icons.js";
import { IncidentMembers } from "./incident_members.js";
import { LongText, Paged } from "../show_more.js";
import { Payload } from "./payload.js";
import { askSnooze, backToList, badges, closeItem, openItem, placeOf } from "./row.js";

/** @typedef {import("../../types").Item} Item */
/** @typedef {import("../../state/store.js").State} State */

const DWELL = 700; // milliseconds after which an open item is marked as read
const STEPS = 100, LONG = 4000, SHORT = 400; // steps of a plan, characters of an error and of a name, at first

/** @param {{state: State}} how */
export function Detail({ state }) {
  const item = state.openItem;
  const now = useClock();
  const ref = useRef(/** @type {HTMLElement | null} */ (null));
  const live = item !== null && state.inbox.items.some((one) => one.id === item.id);
  useEffect(() => {
    ref.current?.scrollTo(0, 0);
    // If the item replaces the list on a narrow screen, the focused row is hidden. The browser drops its focus only at
    // the next frame, so the focus moves now.
    if (document.activeElement === document.body || !document.activeElement?.getClientRects().length) ref.current?.focus();
    if (!item || item.state !== "unread" || state.view === "dismissed") return;
    const timer = setTimeout(() => setState([item.id], "read", true), DWELL);
    return () => clearTimeout(timer);
  }, [item?.id]);
  useEffect(() => backToList, []);
  if (!item) return null;
  const ends = due(item, now), unread = item.state === "unread", done = item.state === "resolved" || item.state === "decided", asks = item.ask !== undefined;
  const incident = live || done ? undefined : state.inbox.items.find((one) => one.members?.includes(item.id));
  const gone = state.removed.get(item.id) ?? (done ? (item.resolved_action ?? item.state).replaceAll("_", " ")
    : isDismissed(state, item.id) ? REMOVAL_REASONS[item.dismissed_until ? "snoozed" : "dismissed"] : undefined);
  return html`
    <article class=${`detail ${item.band} ${asks ? "asking" : ""}`} ref=${ref} aria-labelledby="detail-title" tabIndex="-1" id="detail">
      <header>
        <p class="over"><span class="kind"><${Icon} name=${kindLabel(item.kind).icon} /></span> ${kindLabel(item.kind).name}
          ${!item.clusters && placeOf(item) && html`<span class="at" title=${isolate(placeOf(item))} dir="auto">${placeOf(item)}</span>`}
          <span class="tools">${!done && html`<button class="plain" disabled=${state.pending.has(item.id)} onClick=${() => setState([item.id], unread ? "read" : "unread")}
            aria-label=${unread ? "Mark read" : "Mark unread"} title=${unread ? "Mark read (u)" : "Mark unread (u)"}><${Icon} name="unread" /></button>`}
          <button class="plain close" onClick=${closeItem} aria-label="Close" title="Close (Esc)"><${Icon} name="close" /></button></span></p>
        <h2 id="detail-title" dir="auto"><${LongText} key=${item.title} text=${item.title} most=${LONG} /></h2>
        <p class="badges">
          <span class=${`badge band ${item.band}`}>${item.band}</span>
          ${badges(item).map(([tone, text]) => html`<span key=${text} class=${`badge ${tone}`}>${text}</span>`)}
          <span class=${`due ${ends.tone}`}>${ends.text}</span>
        </p>
        ${incident ? html`<p class="notice" role="status">Part of an incident: <button class="link" onClick=${() => openItem(incident.id)}><bdi>${truncate(incident.title, SHORT)}</bdi></button></p>`
          : gone && !live && !(asks && done) && state.view !== "dismissed" && html`<p class="notice" role="status">No longer in your list: <bdi>${truncate(gone, SHORT)}</bdi>.</p>`}
        ${!asks && html`<${Actions} item=${item} state=${state} /><p class="why">${explainRank(item)}</p>`}
      </header>
      ${asks && html`<${Answering} part="Question" item=${item} state=${state} gone=${live || gone !== REMOVAL_REASONS.retargeted ? undefined : gone}>
        ${item.body_md && html`<div class="body"><${Body} text=${item.body_md} /></div>`}<//>`}
      ${asks && html`<section class="block more" aria-label="More"><${Actions} item=${item} state=${state} /><p class="why">${explainRank(item)}</p></section>`}
      ${item.risk && !item.ask?.action?.risk && html`<${Risk} item=${item} />`}
      ${item.error && html`<section class="block"><h3>Error</h3><pre class="error" tabIndex="0" dir="auto"><${LongText} key=${item.id} text=${item.error} most=${LONG} /></pre></section>`}
      ${item.body_md && !asks && html`<section class="block body"><${Body} text=${item.body_md} /></section>`}
      ${item.plan && html`<${Plan} key=${item.id} plan=${item.plan} />`}
      ${item.members && html`<${IncidentMembers} item=${item} />`}
      ${item.payload && html`<${Payload} key=${item.id} payload=${item.payload} />`}
      <${Facts} item=${item} now=${now} />
      ${item.case_id && html`<${History} case=${item.case_id} revision=${item.revision} />`}
    </article>`;
}

/** Replaces invisible characters by their escapes. @param {string} text */
const visible = (text) => text.replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, (sign) => `\\u${(sign.codePointAt(0) ?? 0).toString(16).padStart(4, "0")}`);

/** Link to the source, and the commands. @param {{item: Item, state: State}} how */
function Actions({ item, state }) {
  const busy = state.pending.has(item.id), ids = [item.id], dismissed = isDismissed(state, item.id);
  const own = !MANAGED.has(item.kind) && item.ask === undefined, href = linkTo(item.action_url);
  // An address that is not a safe link is shown as text.
  const text = item.action_url && href === null && html`<p class="hint">The address from its source is not a valid link: <code dir="ltr">${truncate(visible(item.action_url), SHORT)}</code></p>`;
  if (item.state === "resolved" || item.state === "decided") {
    return item.action_url ? html`<div class="actions">${href !== null && html`<a class="button" href=${href} target="_blank" rel="noopener noreferrer">
      Open at its source <${Icon} name="open" size="15" /></a>`}${text}</div>` : null;
  }
  return html`<div class="actions" role="group" aria-label="Actions">
    ${href !== null && html`<a class=${`button ${own || item.ask ? "" : "primary"}`} href=${href} target="_blank" rel="noopener noreferrer">
      ${own || item.ask ? "Open at its source" : kindLabel(item.kind).verb} <${Icon} name="open" size="15" /></a>`}
    ${own && html`<button class="button primary" disabled=${busy} onClick=${() => resolve(ids, item.kind === "failed_run" || item.kind === "incident" ? "retried" : undefined)}>
      <${Icon} name="check" size="16" /> ${item.kind === "failed_run" || item.kind === "incident" ? "Resolve as retried" : "Resolve"}</button>`}
    ${dismissed ? html`<button class="button" disabled=${busy} onClick=${() => restore(ids)}><${Icon} name="back" size="16" /> Restore</button>` : html`
      <button class="button" disabled=${busy} onClick=${() => askSnooze(ids)}><${Icon} name="clock" size="16" /> Snooze</button>
      <button class="button" disabled=${busy} onClick=${() => dismiss(ids)}><${Icon} name="dismissed" size="16" /> Dismiss</button>`}
    ${!own && !item.ask && !item.action_url && html`<p class="hint">${kindLabel(item.kind).verb} at its source (<bdi>${truncate(item.source_id, SHORT)}</bdi>); the item then leaves the list.</p>`}
    ${text}
  </div>`;
}

/** @param {{item: Item}} how */
const Risk = ({ item }) => html`
  <section class=${`block risk risk-${item.risk}`} aria-label="Risk">
    <span class="meter" aria-hidden="true">${["low", "medium", "high", "critical"].map((step, place, all) =>
      html`<i class=${place <= all.indexOf(item.risk ?? "low") ? "on" : ""}></i>`)}</span>
    <b>${item.risk} risk</b>
    <span>${item.reversible === true ? "It can be undone." : item.reversible === false ? "It can’t be undone." : "Its source does not say whether it can be undone."}</span>
  </section>`;

/** @param {{plan: NonNullable<Item["plan"]>}} how */
const Plan = ({ plan }) => useMemo(() => html`
  <section class="block" aria-labelledby="plan-title">
    <h3 id="plan-title">Plan <small>${plan.auto} automatic, ${plan.confirm} after you confirm</small></h3>
    <ol class="steps">
      <${Paged} of=${plan.steps} most=${STEPS} one="step" end=${(/** @type {any} */ button) => html`<li>${button}</li>`} draw=${(/** @type {import("../../types").Step} */ step, /** @type {number} */ place) => html`<li key=${place} class=${step.mode}>
        <span class="number">${place + 1}</span><span class="what" dir="auto"><${LongText} text=${step.title} most=${LONG} /></span>
        <span class=${`badge ${step.mode}`}>${step.mode === "auto" ? "auto" : "confirm"}</span></li>`} />
    </ol>
  </section>`, [plan]);

/** Isolates the direction of foreign text. @param {string | undefined} text */
const foreign = (text) => (text ? html`<bdi>${truncate(text, SHORT)}</bdi>` : undefined);

/** Sender, target, times and ids. @param {{item: Item, now: number}} how */
function Facts({ item, now }) {
  /** @type {[string, any][]} */
  const rows = [
    ["Asked by", foreign(item.sender_name ?? item.sender_id)],
    ["Addressed to", foreign([item.target_user_id, item.target_role].filter(Boolean).join(" or ")) ?? "everyone in the workspace"],
    ["Waiting", html`<span title=${item.created_at}>${formatAge(item.created_at, now)}, since ${formatTime(item.created_at)}</span>`],
    ["Due", item.due_at && html`<span title=${item.due_at}>${formatTime(item.due_at)}</span>`],
    ["Pipeline", foreign([item.pipeline, item.step].filter(Boolean).join(" / "))],
    ["Edited by", item.editor && foreign(item.editor.name ?? item.editor.id)],
    ["Case", item.case_id && html`<button class="link" onClick=${() => navigate({ view: "open", filters: { kind: "", cluster: "", case: item.case_id ?? "", text: "" } })}>
      <bdi>${truncate(item.case_title ?? item.case_id, SHORT)}</bdi></button>`],
    ["Conversation", foreign(item.conversation_id)], ["Session", foreign(item.session_id)],
    ["Source", html`<code dir="auto">${truncate(item.source_id, LONG)}</code>`],
  ];
  return html`<section class="block" aria-labelledby="about-title"><h3 id="about-title">About</h3>
    <dl class="fields">${rows.filter(([, value]) => value).map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
    ${item.resolved_at && html`<p class="notice">Resolved ${formatTime(item.resolved_at)}${item.resolved_by_user_id && html` by ${foreign(item.resolved_by_user_id)}`}.</p>`}
    ${item.count && item.members && item.count > item.members.length ? html`<p class="hint">${plural(item.count, "run")} in all.</p>` : null}
  </section>`;
}
