// Header: search, connection state, unread count, menu; and the banner while the connection is down.
import { showToast } from "../commands/item_commands.js";
import { toggleNotifications } from "../shell/notifications.js";
import { navigate, page, signOut, switchWorkspace, retryNow } from "../state/page_state.js";
import { theme, cycleTheme } from "../state/theme.js";
import { truncate, isolate } from "../text/labels.js";
import { html, useClock, useEffect, useRef, useState } from "./dom.js";
import { Icon } from "./icons.js";

/** @typedef {import("../state/store.js").State} State */

const SEARCH_DELAY_MS = 150; // milliseconds after the last key before the search starts

/** @param {{state: State}} how */
export function Header({ state }) {
  const { me, inbox, link } = state, who = isolate(truncate(me ? me.name ?? me.user_id : "", 200));
  return html`<header class="top">
    <p class="brand"><svg viewBox="0 0 24 24" width="26" height="26" aria-hidden="true"><rect x="1" y="1" width="22" height="22" rx="7" /><path d="M6 13.5h3.2l1.5 2.5h2.6l1.5-2.5H18M12 5.5v5M9.8 8.6L12 10.8l2.2-2.2" /></svg> attn</p>
    <${Search} text=${state.filters.text} />
    <span class=${`link ${link.state}`} role="status"><i aria-hidden="true"></i><span>${link.state === "live" ? "Live" : link.state === "connecting" ? "Connecting" : "Offline"}</span></span>
    <button class="plain bell" onClick=${() => navigate({ view: "unread" })} aria-label=${`${inbox.counts.unread} unread`} title="Show what is unread">
      <${Icon} name="bell" />${inbox.counts.unread > 0 && html`<span class="count" aria-hidden="true">${inbox.counts.unread > 99 ? "99+" : inbox.counts.unread}</span>`}</button>
    <${Menu} state=${state} who=${who} />
  </header>`;
}

const leaveSession = async () => {
  const problem = await signOut();
  if (problem) showToast(problem, { tone: "bad" });
};

const LOOKS = { auto: { icon: "auto", name: "as the system" }, dark: { icon: "moon", name: "dark" }, light: { icon: "sun", name: "light" } };

/** The menu. It closes on Escape, and when another element is clicked or focused. @param {{state: State, who: string}} how */
function Menu({ state, who }) {
  const { me } = state;
  const [looks, setLooks] = useState(theme());
  const menu = useRef(/** @type {HTMLDetailsElement | null} */ (null));
  const close = () => { if (menu.current) menu.current.open = false; };
  useEffect(() => {
    const elsewhere = (/** @type {Event} */ event) => { if (!menu.current?.contains(/** @type {Node} */ (event.target))) close(); };
    for (const name of ["pointerdown", "focusin"]) document.addEventListener(name, elsewhere);
    return () => { for (const name of ["pointerdown", "focusin"]) document.removeEventListener(name, elsewhere); };
  }, []);
  const keys = (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== "Escape" || !menu.current?.open) return;
    event.preventDefault(); // Escape closes only the menu, not the open item
    close();
    menu.current.querySelector("summary")?.focus();
  };
  return html`
    <details class="menu" ref=${menu} onKeyDown=${keys}>
      <summary aria-label=${`Menu of ${who}`}><span class="avatar" aria-hidden="true">${[...who.replace(/[\u2066-\u2069]/g, "")][0]?.toUpperCase() ?? "·"}</span></summary>
      <div class="sheet-menu">
        ${me?.user_id && html`<p><bdi><b>${who}</b></bdi><br />${me.role.toLowerCase()} of <bdi>${truncate(me.workspace_id, 200)}</bdi></p>`}
        ${(me?.workspaces.length ?? 0) > 1 && html`<div role="group" aria-label="Workspaces">${me?.workspaces.map(({ id, role }) => html`<button key=${id} class="nav" aria-current=${id === me.workspace_id ? "true" : undefined} disabled=${id === me.workspace_id}
          onClick=${() => switchWorkspace(id)}><${Icon} name=${id === me.workspace_id ? "check" : "inbox"} /> <span><bdi>${truncate(id, 100)}</bdi>, ${role.toLowerCase()}</span></button>`)}</div>`}
        <button class="nav" onClick=${() => setLooks(cycleTheme())}><${Icon} name=${LOOKS[looks].icon} /> <span>Theme: ${LOOKS[looks].name}</span></button>
        <button class="nav" aria-pressed=${state.notificationsOn} onClick=${toggleNotifications}><${Icon} name="bell" /> <span>${state.notificationsOn ? "Notifying of urgent items" : "Notify me of urgent items"}</span></button>
        <button class="nav" onClick=${() => { close(); page.set({ dialog: "help" }); }}><${Icon} name="keys" /> <span>Keyboard shortcuts</span></button>
        ${["OWNER", "ADMIN"].includes(me?.role ?? "") && html`<button class="nav" onClick=${() => { close(); page.set({ dialog: "keys" }); }}><${Icon} name="key" /> <span>Keys of sources</span></button>`}
        <button class="nav" onClick=${() => { close(); page.set({ dialog: "sessions" }); }}><${Icon} name="keys" /> <span>My sessions</span></button>
        <button class="nav" onClick=${leaveSession}><${Icon} name="out" /> <span>Sign out</span></button>
      </div>
    </details>`;
}

/** @param {{text: string}} how */
function Search({ text }) {
  const box = useRef(/** @type {HTMLInputElement | null} */ (null)), waiting = useRef(0);
  useEffect(() => {
    if (box.current && document.activeElement !== box.current) box.current.value = text;
  }, [text]);
  const typed = () => {
    clearTimeout(waiting.current);
    waiting.current = setTimeout(() => navigate({ filters: { ...page.get().filters, text: box.current?.value ?? "" } }), SEARCH_DELAY_MS);
  };
  return html`<div class="search" role="search"><${Icon} name="search" size="16" />
    <input id="search" ref=${box} type="search" placeholder="Search" aria-label="Search the inbox" autocomplete="off" maxlength="200" onInput=${typed} /><kbd>/</kbd></div>`;
}

/** Warns while the connection is down. @param {{state: State}} how */
export function Banner({ state }) {
  const { link } = state;
  const now = useClock(Date.now); // `until` is in local time
  const [late, setLate] = useState(false);
  const down = link.state === "down" || link.state === "full";
  // The banner appears after 1.5 s: shorter interruptions are not shown.
  useEffect(() => {
    if (!down) return setLate(false);
    const timer = setTimeout(() => setLate(true), 1500);
    return () => clearTimeout(timer);
  }, [down]);
  if (!down || !late) return null;
  const left = Math.max(0, Math.ceil(((link.until ?? now) - now) / 1000));
  return html`<div class="banner" role="status">
    <span>${link.state === "full" ? link.text : `${link.text}. The list may be out of date; no change is lost.`}</span>
    <button class="small" onClick=${retryNow}>Try now${left > 0 && html`<span aria-hidden="true"> (${left} s)</span>`}</button></div>`;
}
