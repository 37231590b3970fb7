import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";

import { apply, before, EMPTY } from "../../api/static/attn/fold.js";
import { frames } from "../../api/static/attn/sse.js";

const folder = new URL("../data/feed-vectors/", import.meta.url);
const names = readdirSync(folder).filter((name) => name.endsWith(".json"));
const vector = (name) => JSON.parse(readFileSync(new URL(name, folder), "utf8"));

async function* bytes(text, size) {
  const all = new TextEncoder().encode(text);
  for (let at = 0; at < all.length; at += size) yield all.subarray(at, at + size);
}

const read = async (text, size = 1 << 20) => Array.fromAsync ? Array.fromAsync(frames(bytes(text, size))) : collect(frames(bytes(text, size)));
async function collect(each) {
  const all = [];
  for await (const one of each) all.push(one);
  return all;
}

test("at least five vectors exist", () => assert.ok(names.length >= 5));

for (const name of names) {
  test(`law 4: ${name}`, async () => {
    const { limit, steps } = vector(name);
    let inbox = EMPTY;
    for (const { stream, inbox: { cursor, ...wanted } } of steps) {
      for (const frame of await read(stream)) inbox = apply(inbox, frame);
      const { cursor: at, ...got } = inbox;
      assert.deepEqual(got, wanted);
      assert.ok(Number(at) <= cursor && inbox.items.length <= limit);
    }
  });

  test(`repeated frames change nothing: ${name}`, async () => {
    const all = await read(vector(name).steps.map((step) => step.stream).join(""));
    let inbox = EMPTY;
    for (const frame of all) inbox = apply(inbox, frame);
    for (const frame of all.slice(1)) assert.equal(apply(inbox, frame), inbox);
  });

  test(`apply does not modify the copy passed to it: ${name}`, async () => {
    let inbox = EMPTY;
    for (const frame of await read(vector(name).steps.map((step) => step.stream).join(""))) {
      const was = JSON.stringify(inbox);
      const next = apply(inbox, frame);
      assert.equal(JSON.stringify(inbox), was);
      inbox = next;
    }
  });
}

test("a stream may arrive in chunks of any size", async () => {
  const text = vector("a-morning.json").steps.map((step) => step.stream).join("");
  const whole = await read(text);
  for (const size of [1, 2, 3, 7, 1000]) assert.deepEqual(await read(text, size), whole);
});

test("comments, retry, several data lines, a truncated block", async () => {
  assert.deepEqual(await read(": hello\n\nretry: 1200\n\nid: 1\r\ndata: [1,\r\ndata: 2]\r\n\r\ndata: 3"), [
    { id: undefined, event: "message", data: undefined, retry: 1200 },
    { id: "1", event: "message", data: [1, 2], retry: undefined },
  ]);
});

test("items are ordered by rank in code units, then by id", () => {
  const items = [{ rank: "b", id: "1" }, { rank: "a", id: "z" }, { rank: "a", id: "Z" }];
  assert.deepEqual(items.sort(before).map((item) => item.id), ["Z", "z", "1"]);
});

test("an unknown event changes only the cursor", () => {
  const inbox = { ...EMPTY, cursor: "4096" };
  assert.deepEqual(apply(inbox, { id: "8192", event: "news", data: {} }), { ...inbox, cursor: "8192" });
  assert.equal(apply(EMPTY, { id: "1", event: "added", data: {} }), EMPTY);
});
