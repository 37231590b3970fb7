// The list: bands, windowed rows, the pill, and the hold while somebody is on it.
import { hasMore, knownItems, unfreezeList, listOnScreen, page, showPending, freezeList, filteredItems } from "../state/page_state.js";
import { isActive } from "../state/filters.js";
import { fetchMoreDismissed, fetchBeyond } from "../state/paging.js";
import { layOutRows, visibleRows } from "../state/list_layout.js";
import { plural } from "../text/labels.js";
import { html, useClock, useEffect, useLayoutEffect, useRef, useState } from "./dom.js";
import { Icon } from "./icons.js";
import { Row } from "./item/row.js";

/** @typedef {import("../state/store.js").State} State */

const OVERSCAN = 600; // pixels drawn beyond what is on screen
const IDLE_MS = 30_000; // milliseconds without a sign of life after which nobody is on the list
const ROW = 68, ROW_NARROW = 100, NARROW = 600; // pixels, as in parts.css

/** @type {Record<string, string>} */
const NAMES = { urgent: "Urgent", high: "High", normal: "Normal", low: "Low" };

/** @param {{state: State}} how */
export function List({ state }) {
  const now = useClock();
  const pane = useRef(/** @type {HTMLElement | null} */ (null)), whole = useRef(/** @type {HTMLElement | null} */ (null));
  const [view, setView] = useState({ top: 0, height: 800, width: NARROW + 1 });
  useFreeze(whole);

  const { shown, fresh, moved } = listOnScreen(state);
  const more = hasMore(state) && !isActive(state.filters) && state.view !== "unread";
  const { rows, height } = layOutRows(shown, view.width <= NARROW ? ROW_NARROW : ROW, more, state.view !== "dismissed");
  const drawn = visibleRows(rows, view.top - OVERSCAN, view.top + view.height + OVERSCAN, state.activeId);

  useLayoutEffect(() => {
    const at = pane.current;
    if (!at) return;
    const look = () => setView({ top: at.scrollTop, height: at.clientHeight, width: at.offsetWidth });
    const sized = new ResizeObserver(look);
    sized.observe(at);
    at.addEventListener("scroll", look, { passive: true });
    look();
    return () => {
      sized.disconnect();
      at.removeEventListener("scroll", look);
    };
  }, []);

  useEffect(() => {
    if (view.top + view.height + 3 * OVERSCAN < height || !hasMore(state)) return;
    if (state.view === "dismissed") fetchMoreDismissed(page);
    else if (state.inbox.cursor !== null) fetchBeyond(page);
  });

  useActiveRow(pane, rows, state.activeId);
  const size = more ? -1 : shown.length;
  return html`
    <div class="listing" ref=${whole}>
      ${(fresh > 0 || moved) && html`<button class="pill" onClick=${showPending}>${fresh > 0 ? `${fresh} new` : "New order"}<kbd>.</kbd></button>`}
      <div class="scroll" ref=${pane} tabIndex="-1" id="list">
        <ul class="rows" role="list" style=${{ height: `${height}px` }} aria-label="Items, the most pressing first" aria-busy=${state.inbox.cursor === null}>
          ${drawn.map((row) => row.band
            ? html`<li key=${row.key} class=${`heading ${row.band.name}`} style=${{ transform: `translateY(${row.top}px)` }}>
                <h2>${NAMES[row.band.name]} <span class="count">${row.band.count}${row.band.more ? "+" : ""}</span></h2></li>`
            : html`<${Row} key=${row.key} row=${row} state=${state} now=${now} size=${size} />`)}
        </ul>
        <${Below} state=${state} empty=${shown.length === 0} />
      </div>
    </div>`;
}

/** @param {{state: State, empty: boolean}} how */
function Below({ state, empty }) {
  const { beyond, dismissed, view, inbox, filters } = state;
  const busy = view === "dismissed" ? dismissed.loading : beyond.loading || inbox.cursor === null;
  if (busy) return html`<p class="below" role="status">Loading…</p>`;
  const searching = (isActive(filters) || view === "unread") && hasMore(state) && view !== "dismissed";
  if (searching) return html`<p class="below">Searched ${knownItems(state).length.toLocaleString()} of ${plural(inbox.counts.total, "item")}.</p>`;
  if (!empty) return null;
  if (isActive(filters)) return html`<p class="empty"><${Icon} name="search" size="52" calm /><b>Nothing matches.</b><br />Try fewer words, or clear the filters.</p>`;
  if (view === "dismissed") return html`<p class="empty"><${Icon} name="dismissed" size="52" calm /><b>Nothing dismissed.</b><br />Items that you dismiss or snooze appear here.</p>`;
  if (view === "unread" && filteredItems(state).length === 0 && inbox.counts.total > 0) return html`<p class="empty"><${Icon} name="check" size="52" /><b>All read.</b><br />${plural(inbox.counts.total, "item")} still open.</p>`;
  return html`<p class="empty"><${Icon} name="check" size="52" /><b>Nothing needs you.</b><br />New items appear here automatically.</p>`;
}

/**
 * While the pointer or the keyboard is on the list, and somebody is there at all, its order is held.
 * @param {{current: HTMLElement | null}} pane
 */
function useFreeze(pane) {
  useEffect(() => {
    const at = pane.current;
    if (!at) return;
    let over = false, life = -IDLE_MS;
    const check = () => {
      const on = over || Boolean(document.activeElement?.closest(".row") && at.contains(document.activeElement));
      if (on && performance.now() - life < IDLE_MS) freezeList();
      else unfreezeList();
    };
    const alive = () => {
      life = performance.now();
      check();
    };
    const enter = () => { over = true; alive(); };
    const leave = () => { over = false; check(); };
    const focus = () => setTimeout(check);
    // A list that came to lie under a pointer at rest is not pointed at: only a move says so, not `pointerenter`.
    at.addEventListener("pointermove", enter, { passive: true });
    at.addEventListener("pointerleave", leave);
    at.addEventListener("pointerdown", enter);
    at.addEventListener("scroll", () => over && alive(), { passive: true, capture: true });
    at.addEventListener("focusin", alive);
    at.addEventListener("focusout", focus);
    document.addEventListener("keydown", alive);
    const timer = setInterval(check, 1000);
    return () => {
      clearInterval(timer);
      document.removeEventListener("keydown", alive);
    };
  }, []);
}

/**
 * Where the keyboard is, is on screen, and keeps the focus when rows come and go.
 * @param {{current: HTMLElement | null}} pane
 * @param {import("../state/list_layout.js").Row[]} rows
 * @param {string | null} id
 */
function useActiveRow(pane, rows, id) {
  const had = useRef(false);
  useLayoutEffect(() => {
    const at = pane.current, row = rows.find((one) => one.key === id);
    if (!at || !row) return;
    if (row.top - 40 < at.scrollTop) at.scrollTop = Math.max(0, row.top - 40);
    else if (row.top + row.height > at.scrollTop + at.clientHeight) at.scrollTop = row.top + row.height - at.clientHeight;
    if (!had.current) return; // a link opened it, say
    const main = at.querySelector(`[data-id="${CSS.escape(row.key)}"] .main`);
    if (main instanceof HTMLElement && !main.contains(document.activeElement)) main.focus({ preventScroll: true });
  }, [id]);
  useEffect(() => {
    // What had the focus may just have gone; then nothing has it.
    const inside = Boolean(pane.current?.contains(document.activeElement));
    had.current = inside || (had.current && document.activeElement === document.body);
  });
}
