// Modules of the page against foreign text, wrong clocks and failing servers, without a browser.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { LEAST, MOST, pause, retryAfter } from "../../api/static/attn/backoff.js";
import { now, setFromDate, setFromHeartbeat } from "../../api/static/attn/clock.js";
import { isExact, parse, stringify } from "../../api/static/attn/exact.js";
import { followFeed, silenceLimit } from "../../api/static/attn/feed/connection.js";
import { linkTo } from "../../api/static/attn/text/links.js";
import { frames } from "../../api/static/attn/sse.js";
import { due, isolate } from "../../api/static/attn/text/labels.js";

// Number literals of all forms, generated from a seed: a failure is reproducible.
function* numbers(seed, count) {
  const random = () => ((seed = (seed * 1103515245 + 12345) % 2147483648) / 2147483648);
  const digits = (most) => Array.from({ length: 1 + Math.floor(random() * most) }, () => Math.floor(random() * 10)).join("");
  for (let n = 0; n < count; n++) {
    const whole = digits(30).replace(/^0+(?=\d)/, "");
    yield `${random() < 0.3 ? "-" : ""}${whole}${random() < 0.4 ? `.${digits(25)}` : ""}${random() < 0.3 ? `${random() < 0.5 ? "e" : "E"}${["", "+", "-"][Math.floor(random() * 3)]}${digits(4)}` : ""}`;
  }
}

test("numbers keep their digits from parse to stringify", () => {
  for (const text of ["9007199254740993", "8080", "1e400", "0.10", "-0", "-0.0", "1.0", "1E5", "5e-324", "0.1", "1e-400", "123456789012345678901234567890", ...numbers(7, 3000)]) {
    for (const [before, after] of [["", ""], ["[", "]"], ['{"a":', "}"], ['{"a" : [1, ', ' ,"x"]}']]) {
      const read = parse(before + text + after);
      assert.equal(stringify(read).replaceAll(/\s/g, ""), (before + text + after).replaceAll(/\s/g, ""));
    }
  }
  assert.equal(parse("[8080]")[0], 8080, "what a double holds is a number");
  assert.ok(isExact(parse("[1e400]")[0]) && isExact(structuredClone(parse("[1e400]")[0])), "it can be posted to another tab");
});

test("parse changes only numbers, and refuses what is not JSON", () => {
  for (const text of ['{"a":"1e400, 0.10","b":"x\\", 12345678901234567890","__proto__":0.5}', '["\\\\",1e400,"\\u2028 ,1e9"]', '{"a":{"a":[[[0.10]]]}}', "[]", '""', "null"]) {
    assert.equal(stringify(parse(text)), stringify(JSON.parse(text)).replace(/null(?=,"\\u2028)|null(?=," )/, "1e400").replace("[[[0.1]]]", "[[[0.10]]]").replace('["\\\\",null', '["\\\\",1e400'));
  }
  for (const text of ["[01, 1e400]", "[1e400", "[.5, 0.10]", "[1e, 0.10]", "[--1.0]", "[1.0.0]", '{"a":1e400,}']) assert.throws(() => parse(text), SyntaxError, text);
  const deep = `${'{"a":['.repeat(2000)}0.10${"]}".repeat(2000)}`;
  assert.ok(parse(deep).a);
  assert.ok(parse(`{"a":"${"\\n".repeat(300_000)}","b":0.10}`).b, "a long string of escapes");
});

test("any Retry-After gives a bounded wait", () => {
  const at = Date.parse("2015-10-21T07:27:30Z");
  assert.equal(retryAfter("Wed, 21 Oct 2015 07:28:00 GMT", at), 30);
  assert.equal(retryAfter("Wed, 21 Oct 2015 07:28:00 GMT", at + 3_600_000), 0);
  assert.equal(retryAfter(" 7 ", at), 7);
  for (const garbage of [null, "", "-5", "1.5", "soon", "NaN", "Infinity", "1e9", "Wed", "2015-10-21", "Wed, 99 Foo 2015"]) assert.equal(retryAfter(garbage, at), null, garbage);
  for (let failures = 1; failures < 2000; failures = failures * 2 + 1) {
    for (const told of [null, -5000, 0, 30, 5000, 1e12, Number.MAX_VALUE, Number.NaN, retryAfter("9".repeat(400), at) * 1000]) {
      const [least, most] = [pause(failures, told, 0), pause(failures, told, 1)];
      assert.ok(least >= LEAST && most <= 1.3 * MOST && most > least, `${failures} ${told}: ${least} ${most}`);
    }
  }
  assert.ok(pause(1, 5000, 0) >= 5000, "what a server asks for is kept");
});

test("a failing server gets at most one request a second", async () => {
  const bodies = [
    () => new Response("retry: 0\n\n"), () => new Response("retry: 0\n\nid: 1\nevent: heartbeat\ndata: {}\n\n"),
    () => new Response("{}", { status: 503, headers: { "retry-after": "Wed, 21 Oct 2015 07:28:00 GMT" } }),
    () => new Response("{}", { status: 503, headers: { "retry-after": "-5" } }), () => new Response("null", { status: 429 }),
    () => new Response("<html>", { status: 502, headers: { "retry-after": "garbage" } }), () => { throw new TypeError("no line"); },
    () => new Response("id: 1\nevent: added\ndata: {not json\n\n"),
  ];
  for (const body of bodies) {
    const waits = [], ending = new AbortController();
    let asked = 0;
    globalThis.fetch = async () => (asked++, body());
    await followFeed({
      cursor: () => null, limit: 1, signal: ending.signal, wake: new EventTarget(), onFrames() {}, onLink() {},
      sleep: async (wait) => { waits.push(wait); if (waits.length === 5) ending.abort(); },
    });
    assert.equal(asked, 5);
    assert.ok(waits.every((wait) => wait >= LEAST), `${body}: ${waits}`);
  }
});

test("repeated wake events send at most one request a second", { timeout: 20_000 }, async () => {
  const times = [], wake = new EventTarget();
  globalThis.fetch = async () => (times.push(performance.now()), new Response(null, { status: times.length < 3 ? 503 : 401 }));
  const waking = setInterval(() => wake.dispatchEvent(new Event("wake")), 20);
  await followFeed({ cursor: () => null, limit: 1, signal: new AbortController().signal, wake, onFrames() {}, onLink() {} });
  clearInterval(waking);
  assert.ok(times[2] - times[0] > 2 * LEAST - 100, String(times));
});

test("the silence limit follows the heartbeat interval", () => {
  assert.equal(silenceLimit(null), 50_000);
  assert.equal(silenceLimit("1"), 50_000);
  assert.equal(silenceLimit("60"), 185_000);
  for (const odd of ["", "x", "-1", "0", "Infinity", "1e300"]) assert.ok(silenceLimit(odd) >= 50_000 && silenceLimit(odd) < 2 ** 31, odd);
});

test("times follow the server's clock", () => {
  const server = (/** @type {number} */ shift) => new Date(Date.now() + shift);
  for (const shift of [7_200_000, -7_200_000, 0]) {
    setFromDate(new Response("", { headers: { date: server(shift).toUTCString() } }));
    assert.ok(Math.abs(now() - server(shift).getTime()) < 2100);
    setFromHeartbeat(server(shift + 500).toISOString());
    setFromDate(new Response("", { headers: { date: server(shift).toUTCString() } }));
    assert.ok(Math.abs(now() - server(shift + 500).getTime()) < 100, "a whole second is not better than a millisecond");
  }
  setFromDate(new Response(""));
  setFromDate(new Response("", { headers: { date: "yesterday" } }));
  setFromHeartbeat(undefined);
  setFromHeartbeat("never");
  assert.ok(Math.abs(now() - Date.now()) < 1000);
});

test("only safe URLs become links", () => {
  const origin = "https://attn.example";
  for (const [address, wanted = address] of [
    ["https://example.org/w?a=1#b"], ["http://127.0.0.1:8080/x"], ["/cases/a%2Fb"], ["/"], ["HTTPS://example.org/"], ["https://bücher.example/", "https://xn--bcher-kva.example/"],
  ]) assert.equal(linkTo(address, origin)?.toLowerCase(), wanted.toLowerCase(), address);
  for (const address of [
    "/\\host", "/\t/host", "//host", "/\n/host", " /x", "https://user@example.org/", "https://a:b@example.org/", "https://", "https:///host", "https:host", "http:/\\host",
    "https://?x", "https://#x", "javascript:alert(1)", "data:text/html,x", "ftp://example.org/", "mailto:a@example.org", "", "cases", "https://exa\u202Emple.org/", "/x\u0000y", "/a\u00a0b",
    "https://example.org\\@evil.example/", "https://[::1", "\u200B/x", "/x\u2028", "https://exam\u00ADple.org/", "https://%00.example/", null, undefined, 7, {},
  ]) assert.equal(linkTo(address, origin), null, String(address));
  // A link must resolve to the URL that was checked; a path stays within the origin.
  for (const one of ["/", "\\", "\t", "@", ":", "?", "#", ".", "..", "host", "%5c", "%2f", "\u202E", "\n"].flatMap((a, _, all) => all.flatMap((b) => all.map((c) => `/${a}${b}${c}`)))) {
    const to = linkTo(one, origin);
    if (to !== null) assert.equal(new URL(to, `${origin}/`).origin, origin, JSON.stringify(one));
  }
});

test("parsing a large frame is linear in its size", async () => {
  const piece = new TextEncoder().encode("x".repeat(1 << 14)), many = 3000; // 48 MB, as 500 large items are
  async function* bytes() {
    yield new TextEncoder().encode('id: 1\ndata: "');
    for (let n = 0; n < many; n++) yield piece;
    yield new TextEncoder().encode('"\n\nid: 2\ndata: 1\n\n');
  }
  const began = performance.now(), all = [];
  for await (const frame of frames(bytes())) all.push(frame);
  assert.deepEqual([all.length, all[0].data.length, all[1].data], [2, many << 14, 1]);
  assert.ok(performance.now() - began < 10_000, `${performance.now() - began} ms`);
});

test("the direction of foreign text is isolated", () => {
  assert.equal(isolate("plain “text” ä"), "plain “text” ä");
  for (const text of ["\u202Eexe.gpj", "שלום", "\u2069\u202Ex", "مرحبا"]) assert.match(isolate(text), /^\u2068[^\u202A-\u202E\u2066-\u2069]*\u2069$/);
});

test("an item without a due time is not late", () => {
  for (const due_at of [undefined, null, "", "x"]) assert.deepEqual(due({ due_at }, Date.now()), { text: "", tone: "calm" });
});

const { toHtml } = await import("../../api/static/attn/text/markdown_worker.js");
const seeds = JSON.parse(readFileSync(new URL("../data/markdown-seeds.json", import.meta.url), "utf8"));

test("boxes of a task list have labels", () => {
  const html = toHtml("- [x] a\n- [ ] b");
  assert.match(html, /class="task done" role="img" aria-label="done"><\/span> a/);
  assert.match(html, /class="task" role="img" aria-label="not done"><\/span> b/);
  assert.match(toHtml('<span class="task done">x</span>'), /&#60;span/);
});

test("markdown above a limit is shown as plain text", () => {
  for (const text of ["- ".repeat(2000) + "x", ">".repeat(5000) + "x", `${"|a".repeat(10_000)}|\n${"|-".repeat(10_000)}|\n`, "- x\n".repeat(10_000)]) assert.equal(toHtml(text), null, text.slice(0, 20));
  assert.match(toHtml("# A\n\n> - *b*\n\n|a|b|\n|-|-|\n|1|2|"), /<table>/);
});

test("seeds of the fuzzer give bounded HTML or none", () => {
  for (const { pieces } of seeds) {
    const html = toHtml(pieces.map(([text, times]) => text.repeat(Math.max(1, times >> 5))).join("")); // a part: the whole is for the worker's deadline
    assert.ok(html === null || (html.match(/</g)?.length ?? 0) < 40_000);
  }
});
