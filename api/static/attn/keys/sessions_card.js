// The card "My sessions": device and last use of each session of the user, and its end. Loaded when it is opened.
import { newIdempotencyKey, ok, request, sendWrite, explain } from "../http.js";
import { page } from "../state/page_state.js";
import { formatTime, truncate } from "../text/labels.js";
import { html, useEffect, useRef, useState } from "../ui/dom.js";
import { Paged } from "../ui/show_more.js";

/** @typedef {{id: string, via: string, device?: string, address?: string, created_at: string, last_used: string, expires_at: string, current?: boolean}} SessionEntry */

const SHOWN = 20, LONG = 200; // sessions shown at once, characters of a text
const PATH = "/org/me/sessions";

/** @param {string} time */
const when = (time) => formatTime(time, { dateStyle: "medium", timeStyle: "short" });

/** The content of the card. */
export function SessionsCard() {
  const [sessions, setSessions] = useState(/** @type {SessionEntry[] | null} */ (null));
  const [problem, setProblem] = useState("");
  const here = useRef(true), list = useRef(/** @type {HTMLElement | null} */ (null));
  const load = async () => {
    const answer = await request("GET", PATH);
    if (!here.current) return;
    if (ok(answer)) setSessions(answer.data.sessions);
    setProblem(ok(answer) ? "" : explain(answer));
  };
  useEffect(() => { load(); return () => { here.current = false; }; }, []);
  const end = async (/** @type {SessionEntry} */ session) => {
    const answer = await sendWrite("DELETE", `${PATH}/${encodeURIComponent(session.id)}`, undefined, undefined, newIdempotencyKey());
    if (!here.current) return;
    if (!ok(answer) && answer.status !== 404) return setProblem(explain(answer));
    page.set({ announcement: "Session ended" });
    await load();
    requestAnimationFrame(() => list.current?.focus());
  };
  return html`<p class="hint">A session that you end loses its open pages within seconds. Tokens are not listed.</p>
    ${problem && html`<p class="notice bad" role="alert">${problem} <button class="small" onClick=${load}>Try again</button></p>`}
    ${sessions === null ? !problem && html`<p class="hint" role="status">Loading…</p>`
      : html`<section ref=${list} tabIndex="-1" aria-label="Sessions">
          ${sessions.length === 0 ? html`<p class="hint">You have no session here.</p>` : html`<ul role="list"><${Paged} of=${sessions} most=${SHOWN} one="session"
            draw=${(/** @type {SessionEntry} */ session) => html`<li key=${session.id}>
              <p><b><bdi>${truncate(session.device ?? "Unknown device", LONG)}</bdi></b>${session.current && " (this one)"}<br />
                signed in ${when(session.created_at)}${session.address && html` from <bdi>${truncate(session.address, LONG)}</bdi>`}, last used ${when(session.last_used)}, ends ${when(session.expires_at)}</p>
              ${!session.current && html`<button class="small" onClick=${() => end(session)}>End<span class="hidden"> the session on ${truncate(session.device ?? "unknown device", LONG)}</span></button>`}
            </li>`} end=${(/** @type {any} */ button) => html`<li>${button}</li>`} /></ul>`}</section>`}`;
}
