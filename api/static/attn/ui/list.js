// List of items: virtual rows with headings by band, the button for pending changes, and freezing while the user interacts.
import { hasMore, knownItems, unfreezeList, listOnScreen, page, showPending, freezeList, filteredItems } from "../state/page_state.js";
import { isActive } from "../state/filters.js";
import { fetchMoreDismissed, fetchBeyond } from "../state/paging.js";
import { layOutRows, visibleRows } from "../state/list_layout.js";
import { plural } from "../text/labels.js";
import { html, useClock, useEffect, useLayoutEffect, useRef, useState } from "./dom.js";
import { Icon } from "./icons.js";
import { Row } from "./item/row.js";

/** @typedef {import("../state/store.js").State} State */

const OVERSCAN = 600; // pixels rendered beyond the visible part
const IDLE_MS = 30_000; // milliseconds without input after which the list is unfrozen
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

/** Text below the rows: loading, search progress, empty list. @param {{state: State, empty: boolean}} how */
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
 * Freezes the list while the pointer or the keyboard is on it and the last input is less than IDLE_MS ago.
 * @param {{current: HTMLElement | null}} pane
 */
function useFreeze(pane) {
  useEffect(() => {
    const at = pane.current;
    if (!at) return;
    let over = false, lastInput = -IDLE_MS;
    const check = () => {
      const on = over || Boolean(document.activeElement?.closest(".row") && at.contains(document.activeElement));
      if (on && performance.now() - lastInput < IDLE_MS) freezeList();
      else unfreezeList();
    };
    const onInput = () => {
      lastInput = performance.now();
      check();
    };
    const enter = () => { over = true; onInput(); };
    const leave = () => { over = false; check(); };
    const focus = () => setTimeout(check);
    // Only a move counts, not `pointerenter`: the list may appear under a pointer at rest.
    at.addEventListener("pointermove", enter, { passive: true });
    at.addEventListener("pointerleave", leave);
    at.addEventListener("pointerdown", enter);
    at.addEventListener("scroll", () => over && onInput(), { passive: true, capture: true });
    at.addEventListener("focusin", onInput);
    at.addEventListener("focusout", focus);
    document.addEventListener("keydown", onInput);
    const timer = setInterval(check, 1000);
    return () => {
      clearInterval(timer);
      document.removeEventListener("keydown", onInput);
    };
  }, []);
}

/**
 * Scrolls the active row into view and keeps its focus while rows are added and removed.
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
    if (!had.current) return; // for example, a deep link opened the item
    const main = at.querySelector(`[data-id="${CSS.escape(row.key)}"] .main`);
    if (main instanceof HTMLElement && !main.contains(document.activeElement)) main.focus({ preventScroll: true });
  }, [id]);
  useEffect(() => {
    // If the focused row was removed, the body has the focus.
    const inside = Boolean(pane.current?.contains(document.activeElement));
    had.current = inside || (had.current && document.activeElement === document.body);
  });
}
