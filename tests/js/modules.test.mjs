import assert from "node:assert/strict";
import { test } from "node:test";

import { followFeed } from "../../api/static/attn/feed/connection.js";
import { clusters, matching, NO_FILTERS } from "../../api/static/attn/state/filters.js";
import { arrange, extend, freeze } from "../../api/static/attn/state/list_freeze.js";
import { explain } from "../../api/static/attn/http.js";
import { select, HEADING, layOutRows, visibleRows } from "../../api/static/attn/state/list_layout.js";
import { hasSecret, isSecret } from "../../api/static/attn/text/secret_masking.js";
import { store } from "../../api/static/attn/state/store.js";
import { due, formatDuration, explainRank } from "../../api/static/attn/text/labels.js";

const item = (id, more = {}) => ({ id, rank: id, title: id, kind: "message", band: "normal", state: "unread", rank_reasons: ["normal"], due_at: "2026-05-20T12:00:00Z", ...more });
const shownIds = ({ shown }) => shown.map((row) => (row.gone ? `(${row.item.id})` : row.item.id)).join(" ");
const NOBODY = new Set();

test("a list that is not frozen is unchanged", () => {
  assert.equal(shownIds(arrange([item("a"), item("b")], null, NOBODY)), "a b");
});

test("frozen: order stays, new items are pending, removed items stay marked, content is current", () => {
  const held = freeze([item("a"), item("b"), item("c")]);
  const now = [item("n"), item("c", { title: "C" }), item("a")];
  const seen = arrange(now, held, NOBODY);
  assert.equal(shownIds(seen), "a (b) c");
  assert.equal(seen.shown[2].item.title, "C");
  assert.deepEqual([seen.fresh, seen.moved], [1, true]);
  assert.equal(shownIds(arrange(now, held, new Set(["b"]))), "a c", "my own doing goes at once");
});

test("frozen: no button without pending changes", () => {
  const held = freeze([item("a"), item("b")]);
  const { fresh, moved } = arrange([item("a", { state: "read" }), item("b")], held, NOBODY);
  assert.deepEqual([fresh, moved], [0, false]);
});

test("frozen: an empty list shows new items at once", () => {
  assert.equal(shownIds(arrange([item("a")], freeze([]), NOBODY)), "a");
  assert.equal(shownIds(arrange([item("n")], freeze([item("a")]), new Set(["a"]))), "n");
});

test("frozen: fetched pages are appended", () => {
  const held = extend(freeze([item("b")]), [item("b"), item("c")]);
  assert.equal(shownIds(arrange([item("a"), item("b"), item("c")], held, NOBODY)), "b c");
});

test("rows: each band has a heading with a count; the last one may continue", () => {
  const list = [item("a", { band: "urgent" }), item("b"), item("c")].map((one) => ({ item: one, gone: one.id === "c" }));
  const { rows, height } = layOutRows(list, 10, true, true);
  assert.deepEqual(rows.map((row) => row.key), ["band:urgent", "a", "band:normal", "b", "c"]);
  assert.deepEqual(rows.filter((row) => row.band).map(({ band }) => [band.count, band.more]), [[1, false], [1, true]]);
  assert.equal(height, 2 * HEADING + 30);
  assert.deepEqual(rows.map((row) => row.top), [0, HEADING, HEADING + 10, 2 * HEADING + 10, 2 * HEADING + 20]);
});

test("rows: a frozen item with a new band adds no second heading", () => {
  const bands = ["high", "urgent", "normal", "high"];
  const { rows } = layOutRows(bands.map((band, place) => ({ item: item(String(place), { band }), gone: false })), 10, false, true);
  assert.deepEqual(rows.filter((row) => row.band).map((row) => row.key), ["band:high", "band:normal"]);
});

test("rows: only visible rows and the focused row are rendered", () => {
  const { rows, height } = layOutRows(Array.from({ length: 5000 }, (_, n) => ({ item: item(`i${n}`), gone: false })), 68, false, true);
  for (const top of [0, 1000, 200_000, height - 800]) {
    const drawn = visibleRows(rows, top, top + 800, null);
    assert.ok(drawn.length <= 14);
    assert.ok(drawn[0].top <= top && drawn.at(-1).top + drawn.at(-1).height >= top + 800);
  }
  assert.equal(visibleRows(rows, 0, 800, "i4000").at(-1).key, "i4000");
  assert.equal(visibleRows(rows, 200_000, 200_800, "i3")[0].key, "i3");
  assert.deepEqual(visibleRows([], 0, 800, null), []);
});

test("selection: single items, and a range with shift", () => {
  const order = ["a", "b", "c", "d"];
  const one = select(new Set(), order, null, "b", false);
  assert.deepEqual([...one], ["b"]);
  assert.deepEqual([...select(one, order, "b", "d", true)], ["b", "c", "d"]);
  assert.deepEqual([...select(one, order, "b", "a", true)].sort(), ["a", "b"]);
  assert.deepEqual([...select(one, order, "b", "b", false)], []);
  assert.deepEqual([...select(one, order, "gone", "c", true)], ["b", "c"]);
});

test("filters: every word, kind, cluster of an incident, case", () => {
  const items = [
    item("a", { title: "Deploy API", cluster: "c1", case_id: "k" }), item("b", { kind: "incident", clusters: ["c1", "c2"], error: "deploy" }),
    item("c", { state: "read" })];
  const ids = (filters, unread = false) => matching(items, { ...NO_FILTERS, ...filters }, unread).map((one) => one.id).join("");
  assert.equal(ids({}), "abc");
  assert.equal(ids({}, true), "ab");
  assert.equal(ids({ text: " deploy  api" }), "a");
  assert.equal(ids({ text: "deploy" }), "ab");
  assert.equal(ids({ cluster: "c1" }), "ab");
  assert.equal(ids({ cluster: "c2", kind: "incident" }), "b");
  assert.equal(ids({ case: "k" }), "a");
  assert.deepEqual(clusters(items, ["z", "c2"]).map((one) => [one.name, one.count]), [["z", 0], ["c2", 1], ["c1", 2]]);
});

test("secrets: detected by name and by value", () => {
  for (const [name, value] of [
    ["api_token", "x"], ["dbPassword", "x"], ["Authorization", "Basic x"], ["client-secret", 5], ["AWS_ACCESS_KEY_ID", "x"], ["note", "ghp_abcdefghijklmnopqrstu"],
    ["url", "postgres://me:pw@host/db"], ["x", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIx."], ["key", "-----BEGIN RSA PRIVATE KEY-----"], ["secrets", { a: 1 }],
  ]) assert.ok(isSecret(name, value), name);
  for (const [name, value] of [["target", "prod"], ["max_tokens", 100], ["url", "https://example.org/a"], ["token", null], ["dry_run", true], ["keyboard", "us"]]) {
    assert.ok(!isSecret(name, value), name);
  }
});

test("secrets: found at any depth, however deep", () => {
  assert.ok(hasSecret("", { a: [{ b: { api_token: "x" } }] }) && hasSecret("password", "x") && hasSecret("secrets", ["a"]));
  assert.ok(!hasSecret("", { a: [{ b: 1 }], token: null }) && !hasSecret("note", undefined));
  let deep = {};
  for (let level = 0; level < 50_000; level++) deep = { deep };
  assert.ok(!hasSecret("", deep));
});

test("labels of times and ranks", () => {
  assert.deepEqual([5, 59, 60, 119, 3600, 4000, 86_400, 100_000, 900_000].map(formatDuration), ["5 s", "59 s", "1 min", "1 min", "1 h", "1 h 06", "1 d", "1 d 3 h", "10 d"]);
  const noon = Date.parse("2026-05-20T12:00:00Z");
  assert.deepEqual(due(item("a"), noon - 60_000), { text: "due in 1 min", tone: "soon" });
  assert.deepEqual(due(item("a"), noon + 3_600_000), { text: "1 h late", tone: "late" });
  assert.match(explainRank(item("a", { rank_reasons: ["high", "overdue", "blocking"] })), /^Rank: high priority, overdue, .*waits for it/);
});

test("every error status has its own text", () => {
  const said = [0, 401, 403, 404, 409, 412, 413, 429, 503].map((status) => explain({ status, data: null, wait: 3 }));
  assert.equal(new Set(said).size, said.length);
  assert.match(explain({ status: 429, data: null, wait: 3 }), /3 s/);
  assert.match(explain({ status: 418, data: { error: "teapot" }, wait: null }), /teapot/);
});

/** An edge that answers one after the other; the last answer ends the session. */
function edge(answers) {
  const asked = [];
  globalThis.fetch = async (path, { headers }) => {
    asked.push(headers["last-event-id"] ?? null);
    const next = answers.shift();
    if (next === undefined) return new Response(null, { status: 401 });
    if (next instanceof Error) throw next;
    return next;
  };
  return asked;
}

const stream = (text) => new Response(text, { status: 200 });

test("the feed resumes at its cursor, reports why it is down, and ends with the session", async () => {
  let cursor = null;
  const told = [], links = [];
  const asked = edge([
    stream("retry: 1\n\nid: 1\nevent: snapshot\ndata: {}\n\n"), new TypeError("no line"),
    new Response('{"error":"too many","limit":8}', { status: 429, headers: { "retry-after": "1" } }),
    new Response('{"error":"not ready"}', { status: 503, headers: { "retry-after": "1" } }), stream("retry: 1\n\nid: 2\nevent: added\ndata: {}\n\n"),
  ]);
  await followFeed({
    cursor: () => cursor, limit: 500, signal: new AbortController().signal, wake: new EventTarget(),
    onFrames: (frames) => frames.forEach((frame) => { told.push(frame.event); cursor = frame.id; }), onLink: (link) => links.push(link), sleep: async () => {},
  });
  assert.deepEqual(told, ["snapshot", "added"]);
  assert.deepEqual(asked, [null, "1", "1", "1", "1", "2"]);
  assert.deepEqual(links.map((link) => link.state), ["live", "down", "down", "full", "down", "live", "down", "ended"]);
  assert.match(links[3].text, /8 live connections/);
});

test("a wake event ends the wait", { timeout: 20_000 }, async () => {
  edge([new Response("{}", { status: 503, headers: { "retry-after": "3600" } })]);
  const wake = new EventTarget();
  await followFeed({
    cursor: () => null, limit: 1, signal: new AbortController().signal, wake, onFrames() {},
    onLink: (link) => { if (link.until) setTimeout(() => wake.dispatchEvent(new Event("wake"))); },
  });
});

test("listeners are called in a tab that is hidden before its next animation frame", { timeout: 20_000 }, async () => {
  globalThis.document = Object.assign(new EventTarget(), { hidden: false });
  globalThis.requestAnimationFrame = () => 0; // never calls back, as in a hidden tab
  const page = store({ unread: 0 });
  const heard = new Promise((hear) => page.listen((state) => hear(state.unread)));
  page.set({ unread: 1 });
  document.hidden = true;
  document.dispatchEvent(new Event("visibilitychange"));
  page.set({ unread: 2 });
  assert.equal(await heard, 2);
});
