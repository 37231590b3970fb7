// Keys of sources: checks of the form, request body, curl line, texts. Terminals: address, code, texts.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";

import { aboutKey, curlLine, expiryTime, explainKeys, hasExpired, NO_VALUES, problemsOf, requestBody, TOPICS } from "../../api/static/attn/keys/key_form.js";
import { codeProblem, explainTerminal, lettersOf, requestIn } from "../../api/static/attn/keys/terminal_form.js";

const NOW = Date.parse("2026-05-20T12:00:00Z"), DAY = 86_400_000;
const filled = (more = {}) => ({ ...NO_VALUES, name: "CI", topics: ["waitpoints"], ...more });

test("a filled form has no problems, an empty one names its fields", () => {
  assert.deepEqual(problemsOf(filled(), NOW), {});
  assert.deepEqual(Object.keys(problemsOf({ ...NO_VALUES, name: "  " }, NOW)), ["name", "topics"]);
});

test("lengths count code points, as the edge does", () => {
  assert.deepEqual(problemsOf(filled({ name: "𝄞".repeat(200) }), NOW), {});
  assert.deepEqual(Object.keys(problemsOf(filled({ name: "𝄞".repeat(201) }), NOW)), ["name"]);
  assert.deepEqual(Object.keys(problemsOf(filled({ source: "s".repeat(2001) }), NOW)), ["source"]);
});

test("expiry: days, the end of a local day, or never", () => {
  assert.equal(expiryTime(filled({ expiry: "30" }), NOW), NOW + 30 * DAY);
  assert.equal(expiryTime(filled({ expiry: "never" }), NOW), null);
  assert.equal(expiryTime(filled({ expiry: "date", date: "2026-12-31" }), NOW), new Date(2027, 0, 1).getTime());
  for (const date of ["", "2026-05-18", "soon"]) assert.deepEqual(Object.keys(problemsOf(filled({ expiry: "date", date }), NOW)), ["date"]);
});

test("the body omits empty fields and trims texts", () => {
  assert.deepEqual(requestBody(filled({ name: " CI ", expiry: "never" }), NOW), { name: "CI", topics: ["waitpoints"] });
  assert.deepEqual(requestBody(filled({ source: " /ci ", expiry: "90" }), NOW), {
    name: "CI", topics: ["waitpoints"], source: "/ci", expires_at: new Date(NOW + 90 * DAY).toISOString() });
});

test("a shell passes the curl line unchanged for any source", () => {
  const source = `/it's "$HOME" \`id\` \\ 日本`;
  for (const topic of Object.keys(TOPICS)) {
    const line = curlLine("https://attn.example.com", "attn_x_y", { id: "k1", topics: [topic], source }, NOW);
    const words = execFileSync("sh", ["-c", `curl() { printf '%s\\0' "$@"; }; ${line}`], { encoding: "utf8" }).split("\0");
    assert.deepEqual(words.slice(0, 7), ["-i", "https://attn.example.com/events", "-H", "Authorization: Bearer attn_x_y", "-H", "Content-Type: application/cloudevents+json", "-d"]);
    const event = JSON.parse(words[7]);
    assert.deepEqual([event.source, event.type, event.time], [source, TOPICS[topic].type, "2026-05-20T12:00:00.000Z"]);
  }
});

test("a key shows when it expires and when it was used", () => {
  const key = { id: "k", name: "CI", topics: [], created_at: "2026-05-01T00:00:00Z", created_by: "ann" };
  assert.deepEqual([aboutKey(key, NOW).expires, aboutKey(key, NOW).used], ["never expires", "not used yet"]);
  assert.equal(aboutKey({ ...key, last_used: "2026-05-20T11:00:00Z" }, NOW).used, "used within the last two hours");
  assert.equal(aboutKey({ ...key, last_used: "2026-05-17T12:00:00Z" }, NOW).used, "last used 3 d ago");
  assert.ok(aboutKey({ ...key, expires_at: "2026-05-20T12:00:00Z" }, NOW).expires.startsWith("expired "));
  assert.equal(hasExpired({ ...key, expires_at: "2026-05-20T12:00:01Z" }, NOW), false);
});

test("a failed request is explained by texts about keys", () => {
  const of = (status, data = null) => explainKeys({ status, data, wait: null });
  assert.equal(of(409, { error: "the workspace has 200 keys" }), "attn says: the workspace has 200 keys.");
  assert.equal(of(418), "attn answered with HTTP status 418.");
  for (const status of [0, 503]) assert.match(of(status), /the same request counts once/);
});

test("the address of a terminal contains its request", () => {
  assert.equal(requestIn("#device=s1.ab.c-_"), "s1.ab.c-_");
  for (const hash of ["", "#item=x", "#device=", `#device=${"x".repeat(2000)}`]) assert.equal(requestIn(hash), "");
});

test("a code is compared by its letters only", () => {
  assert.equal(lettersOf(" bcdf - ghjk1"), "BCDFGHJK");
  assert.equal(codeProblem("bcdf ghjk"), "");
  for (const typed of ["", "BCDF", "BCDF-GHJKL", "1234-5678"]) assert.match(codeProblem(typed), /8 letters/);
});

test("a failed request of a terminal is explained", () => {
  const of = (status, data = null, wait = null) => explainTerminal({ status, data, wait });
  assert.match(of(400, { error: "user_code: is not the code that the terminal shows" }), /not the code/);
  assert.match(of(400, { error: "request: too long" }), /Copy it again/);
  assert.equal(of(410, { error: "too many wrong codes: run `attn login` again" }), "attn says: too many wrong codes: run `attn login` again.");
  assert.match(of(409), /already/);
  assert.match(of(429, null, 60), /60 s/);
  for (const status of [0, 503]) assert.match(of(status), /one answer counts/);
});
