// Fetches the list "My decisions": what the user decided, or may see, and what became of it. The feed does not update it.
import { request, ok } from "../http.js";

/** @typedef {import("./store.js").Store} Store */

const PAGE = 50;
let current = 0; // number of the newest request: the filter may change while an older one is under way

/**
 * @param {Store} page
 * @param {string | null} next
 */
async function fetchPage(page, next) {
  const mine = ++current, { state } = page.get().decisions;
  page.set({ decisions: { ...page.get().decisions, loading: true, failed: false } });
  const query = new URLSearchParams({ limit: String(PAGE), ...(state && { state }), ...(next && { next }) });
  const answer = await request("GET", `/org/me/decisions?${query}`);
  if (mine !== current) return;
  const { decisions } = page.get();
  if (!ok(answer) || !Array.isArray(answer.data?.decisions)) return page.set({ decisions: { ...decisions, loading: false, failed: true } });
  const rows = next === null ? answer.data.decisions : [...decisions.rows, ...answer.data.decisions];
  page.set({ decisions: { ...decisions, rows, next: answer.data.next ?? null, loading: false, loaded: true, failed: false } });
}

/** Fetches the first page. @param {Store} page */
export const fetchDecisions = (page) => fetchPage(page, null);

/** Fetches the next page. @param {Store} page */
export function fetchMoreDecisions(page) {
  const { next, loading } = page.get().decisions;
  return next === null || loading ? undefined : fetchPage(page, next);
}

/** Shows only decisions in a state; "": all. @param {Store} page @param {string} state */
export function filterDecisions(page, state) {
  page.set({ decisions: { ...page.get().decisions, state, rows: [], next: null, loaded: false } });
  return fetchPage(page, null);
}
