import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { argFields, changes, entriesOf, isEditable, pathText, readArgs, readArgsText } from "../../api/static/attn/answer/args_model.js";
import { clearDrafts, draftStore, NO_DRAFT } from "../../api/static/attn/answer/drafts.js";
import { fieldsOf, limitsOf, localMoment, readField, readForm } from "../../api/static/attn/answer/form_model.js";
import { inputGuard, questionId, SETTLE_MS } from "../../api/static/attn/answer/input_guard.js";
import { compareNumbers, isInteger, readNumber } from "../../api/static/attn/answer/numbers.js";
import { needsSecondPress, optionDone, optionKeys, optionTitle, TAKEN } from "../../api/static/attn/answer/option_keys.js";
import { explainAnswer, fieldErrors, outcome, secondsToUndo, signInAgain } from "../../api/static/attn/answer/outcome.js";
import { asks, decidersText, formOf, isOpen, isPlain, openOptions, quorumText, sourceName, voteLines, whyNot } from "../../api/static/attn/answer/question.js";
import { parse, stringify } from "../../api/static/attn/exact.js";
import { SHORTCUTS } from "../../api/static/attn/shell/shortcut_list.js";

const option = (does, more = {}) => ({ id: does, does, ...more });
const keysOf = (options) => Object.fromEntries(optionKeys(options));

// Keys

test("keys: an option gets its key by its effect, in any order of the options", () => {
  const options = ["approve", "edit", "reject", "respond", "ignore", "retry"].map((does) => option(does));
  const wanted = { approve: "a", edit: "e", reject: "r", respond: "w", ignore: "i", retry: "t" };
  assert.deepEqual(keysOf(options), wanted);
  assert.deepEqual(keysOf([...options].reverse()), wanted);
  assert.deepEqual(keysOf([option("acknowledge")]), { acknowledge: "a" });
});

test("keys: `a`, `r` and `e` mean the same on every question", () => {
  const options = [option("choose", { id: "are" }), option("choose", { id: "r" }), option("choose", { id: "ea" })];
  for (const key of Object.values(keysOf(options))) assert.ok(!"are".includes(key), key);
});

test("keys: twenty options of any kind get different keys, none of them a shortcut of the page", () => {
  const effects = ["approve", "reject", "edit", "respond", "ignore", "retry", "acknowledge", "choose"];
  for (let shift = 0; shift < effects.length; shift++) {
    const options = Array.from({ length: 20 }, (_, at) => option(effects[(at * (shift + 1)) % 8], { id: `o${at}`, title: `Option ${at}` }));
    const keys = [...optionKeys(options).values()].filter((key) => key !== null);
    assert.equal(new Set(keys).size, keys.length);
    assert.ok(keys.length >= 15, `${keys.length} keys`);
    for (const key of keys) assert.ok(!TAKEN.has(key), key);
  }
});

test("keys: options get no key of the shortcut list, except those of answers and `e`", () => {
  const source = readFileSync(new URL("../../api/static/attn/shell/keyboard.js", import.meta.url), "utf8");
  const table = /const KEYS = \{([^]*?)\n\};/.exec(source)[1];
  const used = [...table.matchAll(/(?:^|[\s,{])(?:"(.)"|([A-Za-z1-9])): (?:\(|[a-z])/g)].map((found) => found[1] ?? found[2]);
  assert.ok(used.length >= 14, used.join(" "));
  for (const key of used) assert.ok(key === "e" || TAKEN.has(key), `${key} is a shortcut of the page`);
  const listed = SHORTCUTS.flatMap(([keys]) => keys).filter((key) => key.length === 1);
  for (const key of used) assert.ok(listed.includes(key) || key === "o", `${key} is not in the shortcut list`);
});

test("titles and effects as texts", () => {
  assert.equal(optionTitle({ id: "x", does: "approve" }), "Approve");
  assert.equal(optionTitle({ id: "eu", does: "choose" }), "eu");
  const two = [option("approve", { id: "now", title: "Now" }), option("approve", { id: "later", title: "Later" })];
  assert.equal(optionDone("later", undefined, two), "approved “Later”");
  assert.equal(optionDone("approve", undefined, [option("approve")]), "approved");
  assert.equal(optionDone("eu", undefined, [option("choose", { id: "eu", title: "EU" })]), "chose “EU”");
  assert.equal(optionDone("gone", "reject", []), "rejected");
});

test("second press: needed for dangerous options and for decisions without undo", () => {
  assert.ok(needsSecondPress(option("reject", { style: "danger" }), undefined));
  assert.ok(needsSecondPress(option("approve"), { name: "x", reversible: false }));
  assert.ok(needsSecondPress(option("edit"), { name: "x", risk: "critical" }));
  assert.ok(!needsSecondPress(option("approve"), { name: "x", risk: "high" }));
  assert.ok(!needsSecondPress(option("reject"), { name: "x", reversible: false }));
});

// Numbers

test("numbers: parsed by the grammar of JSON, with all digits", () => {
  for (const text of ["9007199254740993", "1.10", "1e400", "-0", "0.1", "12", "-5", "1E+2", "123456789012345678901234567890.5"]) assert.equal(stringify(readNumber(text)), text);
  for (const text of ["", "01", ".5", "1.", "+1", "0x10", "1,5", "NaN", "Infinity", "1 2", "--1", "abc"]) assert.equal(readNumber(text), undefined, text);
  assert.equal(readNumber(" 7 "), 7);
});

test("numbers: compared exactly", () => {
  const n = readNumber;
  assert.equal(compareNumbers(n("9007199254740993"), n("9007199254740992")), 1);
  assert.equal(compareNumbers(n("1.10"), 1.1), 0);
  assert.equal(compareNumbers(n("-0"), 0), 0);
  assert.equal(compareNumbers(n("1e400"), n("9e399")), 1, "beyond the largest double");
  assert.equal(compareNumbers(-3, -2), -1);
  assert.equal(compareNumbers(n("0.30000000000000001"), n("0.3")), 1);
});

test("numbers: integers are recognised", () => {
  for (const text of ["1", "2.0", "1e3", "1.5e1", "-7", "9007199254740993"]) assert.ok(isInteger(readNumber(text)), text);
  for (const text of ["1.5", "1e-1", "0.1"]) assert.ok(!isInteger(readNumber(text)), text);
});

// Form

const FORM = {
  type: "object", required: ["name", "size", "region", "checks", "sure"],
  properties: {
    name: { type: "string", minLength: 2, maxLength: 5 }, mail: { type: "string", format: "email" }, link: { type: "string", format: "uri" },
    day: { type: "string", format: "date" }, when: { type: "string", format: "date-time" }, size: { type: "integer", minimum: 1, maximum: 9 },
    ratio: { type: "number", minimum: 0 }, sure: { type: "boolean" }, region: { type: "string", enum: ["eu", "us"], enumNames: ["Europe", "States"] },
    tier: { type: "string", oneOf: [{ const: "a", title: "Tier A" }, { const: "b" }] }, checks: { type: "array", items: { enum: ["x", "y", "z"] }, minItems: 1, maxItems: 2 },
    many: { type: "array", items: { anyOf: [{ const: "p", title: "Pea" }] } },
  },
};
const GOOD = { name: "ab", size: "9", region: "eu", checks: ["x"], sure: "false" };
const field = (name) => fieldsOf(FORM).find((one) => one.name === name);

test("form: kinds, labels, choices, in the order of the source", () => {
  const fields = fieldsOf(FORM);
  assert.deepEqual(fields.map((one) => one.name), Object.keys(FORM.properties));
  assert.deepEqual(fields.map((one) => one.kind), ["line", "email", "uri", "date", "date-time", "integer", "number", "boolean", "choice", "choice", "multi", "multi"]);
  assert.deepEqual(field("region").choices, [{ value: "eu", label: "Europe" }, { value: "us", label: "States" }]);
  assert.deepEqual(field("tier").choices, [{ value: "a", label: "Tier A" }, { value: "b", label: "b" }]);
  assert.deepEqual(field("many").choices, [{ value: "p", label: "Pea" }]);
  assert.equal(limitsOf(field("checks")), "1 to 2 choices");
  assert.equal(limitsOf(field("size")), "a whole number, 1 to 9");
  assert.deepEqual(fieldsOf(undefined), []);
});

test("form: JSON of each type; empty optional fields are omitted", () => {
  const { form, errors } = readForm(fieldsOf(FORM), { ...GOOD, ratio: "1.10", mail: "a@b.org", link: "https://x.org/a", day: "2024-02-29", tier: "b", many: ["p"] });
  assert.deepEqual(errors, {});
  assert.equal(stringify({ ...form }), '{"name":"ab","mail":"a@b.org","link":"https://x.org/a","day":"2024-02-29","size":9,"ratio":1.10,"sure":false,"region":"eu","tier":"b","checks":["x"],"many":["p"]}');
  assert.deepEqual(Object.keys(readForm(fieldsOf(FORM), GOOD).form), ["name", "size", "sure", "region", "checks"]);
});

test("form: each rule has an error at its field", () => {
  const wrong = {
    name: ["", "a", "abcdef"], mail: ["x", "a@b", "a b@c.de"], link: ["example.org", "http://a b", "x"], day: ["2026-02-30", "26-1-1", "2026-02-30T00:00:00Z"],
    when: ["soon", "2026-13-01T00:00:00Z"], size: ["", "0", "10", "1.5", "x"], ratio: ["-0.1", "1,5", "0x1"], sure: [""], region: ["", "mars"], tier: ["c"],
    checks: [[], ["x", "y", "z"], ["nope"]],
  };
  for (const [name, entries] of Object.entries(wrong)) {
    for (const entry of entries) assert.deepEqual(Object.keys(readForm(fieldsOf(FORM), { ...GOOD, [name]: entry }).errors), [`form.${name}`], `${name} ${entry}`);
  }
  assert.equal(Object.keys(readForm(fieldsOf(FORM), {}).errors).length, 5, "every required field");
});

test("form: characters are code points, as in JSON Schema", () => {
  assert.deepEqual(readField(field("name"), "🙂🙂🙂🙂🙂"), { value: "🙂🙂🙂🙂🙂" });
  assert.ok(readField(field("name"), "🙂").error);
});

test("form: defaults are filled in, with their digits; a field may be emptied", () => {
  const form = parse('{"properties":{"n":{"type":"number","default":1.10},"big":{"type":"integer","default":9007199254740993},"b":{"type":"boolean","default":false},"s":{"type":"string","default":"hi"},"m":{"type":"array","items":{"enum":["x","y"]},"default":["y"]}}}');
  assert.equal(stringify({ ...readForm(fieldsOf(form), {}).form }), '{"n":1.10,"big":9007199254740993,"b":false,"s":"hi","m":["y"]}');
  assert.equal(stringify({ ...readForm(fieldsOf(form), { n: "", s: "", b: "", m: [] }).form }), '{"big":9007199254740993}');
});

test("form: a date and time is sent with an offset; an unchanged default keeps its digits", () => {
  const text = "2026-05-20T08:14:22.123456Z", [one] = fieldsOf({ properties: { t: { type: "string", format: "date-time", default: text } } });
  assert.equal(readField(one, one.initial).value, text);
  assert.match(readField(one, "2026-05-20T10:00").value, /^2026-05-\d\dT\d\d:00:00\.000Z$/);
  assert.equal(localMoment("no time"), "no time");
});

test("form: names such as __proto__ and toString are ordinary names", () => {
  const form = parse('{"properties":{"__proto__":{"type":"string"},"toString":{"type":"string"}},"required":["toString"]}');
  assert.deepEqual(fieldsOf(form).map((one) => one.name), ["__proto__", "toString"]);
  assert.deepEqual(Object.keys(readForm(fieldsOf(form), {}).errors), ["form.toString"]);
  const entries = JSON.parse('{"__proto__":"p","toString":"t"}');
  assert.equal(stringify(readForm(fieldsOf(form), entries).form), '{"__proto__":"p","toString":"t"}');
});

// Arguments

const ACTION = { name: "pay", ...parse('{"args":{"amount":1.10,"id":9007199254740993,"to":"ann","dry":true,"tags":["a"],"nothing":null,"deep":{"x":1.0,"y":{"z":2}}},"editable":["amount","to","dry","deep","extra"]}') };
const ARGS = '{"amount":1.10,"id":9007199254740993,"to":"ann","dry":true,"tags":["a"],"nothing":null,"deep":{"x":1.0,"y":{"z":2}}}';

test("arguments: unchanged arguments are sent with the same digits", () => {
  const { args, errors } = readArgs(ACTION, argFields(ACTION), {});
  assert.deepEqual(errors, {});
  assert.equal(stringify(args), ARGS);
  assert.deepEqual(changes(ACTION.args, args), []);
});

test("arguments: types are kept, only editable names change", () => {
  const fields = argFields(ACTION);
  assert.deepEqual(fields.map((one) => [one.name, one.kind, one.editable]), [
    ["amount", "number", true], ["id", "number", false], ["to", "string", true], ["dry", "boolean", true], ["tags", "json", false], ["nothing", "json", false], ["deep", "json", true], ["extra", "json", true]]);
  const { args } = readArgs(ACTION, fields, { amount: "2.50", id: "1", to: "7", dry: "false", deep: '{"x":1.0,"y":{"z":3}}', extra: '"more"' });
  assert.equal(stringify(args), '{"amount":2.50,"id":9007199254740993,"to":"7","dry":false,"tags":["a"],"nothing":null,"deep":{"x":1.0,"y":{"z":3}},"extra":"more"}');
  assert.deepEqual(changes(ACTION.args, args).map((one) => pathText(one.path)), ["amount", "to", "dry", "deep.y.z", "extra"]);
});

test("arguments: an unreadable value has an error at its field", () => {
  assert.deepEqual(Object.keys(readArgs(ACTION, argFields(ACTION), { amount: "much", deep: "{x}", to: "" }).errors), ["args.amount", "args.deep"]);
  assert.deepEqual(Object.keys(readArgsText("[1]").errors), ["args"]);
  assert.deepEqual(Object.keys(readArgsText("{").errors), ["args"]);
  assert.deepEqual(Object.keys(readArgsText("9007199254740993").errors), ["args"]);
  assert.equal(stringify(readArgsText(ARGS).args), ARGS);
});

test("arguments: no text is lost when the editor switches between fields and JSON", () => {
  const fields = argFields({ ...ACTION, editable: true });
  assert.deepEqual(entriesOf(fields, readArgsText(ARGS).args), {});
  assert.deepEqual(entriesOf(fields, readArgsText(ARGS.replace("1.10", "3.00")).args), { amount: "3.00" });
  assert.equal(entriesOf(fields, readArgsText(ARGS.replace('"to":"ann"', '"to":1')).args), null, "another type");
  assert.equal(entriesOf(fields, readArgsText('{"new":1}').args), null, "other names");
});

test("arguments: only those that the source marks are editable", () => {
  assert.ok(!isEditable({ name: "x" }, "a") && !isEditable({ name: "x", editable: false }, "a") && isEditable({ name: "x", editable: true }, "a"));
});

test("changes: the innermost members are listed, a list as a whole, numbers by digits", () => {
  const of = (before, after) => changes(parse(before), parse(after)).map((one) => `${pathText(one.path)}:${one.before === undefined ? "" : stringify(one.before)}>${one.after === undefined ? "" : stringify(one.after)}`);
  assert.deepEqual(of('{"a":{"b":1,"c":[1,2]},"d":1}', '{"a":{"b":2,"c":[1,3]},"e":null}'), ["a.b:1>2", "a.c:[1,2]>[1,3]", "d:1>", "e:>null"]);
  assert.deepEqual(of('{"n":9007199254740993}', '{"n":9007199254740992}'), ["n:9007199254740993>9007199254740992"]);
  assert.deepEqual(of('{"a.b":{"c d":1}}', '{"a.b":{"c d":true}}'), ['["a.b"]["c d"]:1>true']);
  assert.deepEqual(of('{"a":1}', '{"a":1}'), []);
  assert.ok(changes({}, Object.fromEntries(Array.from({ length: 5000 }, (_, at) => [`k${at}`, at]))).length <= 500, "bounded");
});

// Guard

test("guard: a key press is accepted once its question has been on screen for 0.5 s", () => {
  let time = 0;
  const guard = inputGuard(() => time);
  guard.show("a 1");
  assert.ok(!guard.acceptsKey("a 1"));
  time = 10_000;
  assert.ok(!guard.acceptsKey("a 1"), "it was never visible");
  guard.setVisible(true);
  time += SETTLE_MS - 1;
  assert.ok(!guard.acceptsKey("a 1"));
  time += 1;
  assert.ok(guard.acceptsKey("a 1"));
  assert.ok(!guard.acceptsKey("b 1"), "another item");
  guard.show("a 2");
  assert.ok(!guard.acceptsKey("a 1") && !guard.acceptsKey("a 2"), "the question has just changed");
  time += SETTLE_MS;
  assert.ok(guard.acceptsKey("a 2") && !guard.acceptsKey("a 1"));
});

test("guard: a press that began on one question never answers another", () => {
  let time = 0;
  const guard = inputGuard(() => time);
  guard.show("a 1");
  guard.setVisible(true);
  time = 5000;
  guard.press("a 1");
  assert.ok(guard.acceptsClick("a 1"));
  guard.press("a 1");
  guard.show("b 1"); // the list shifted between pointer down and up
  time += 50;
  assert.ok(!guard.acceptsClick("b 1"));
  guard.press("a 1");
  guard.show("c 1");
  time += 10_000; // the key is held down for 10 s
  assert.ok(!guard.acceptsClick("c 1"));
  guard.press("c 1");
  assert.ok(guard.acceptsClick("c 1"));
  guard.show("d 1");
  time += 100;
  guard.press("d 1"); // pressed too early, released late
  time += 10_000;
  assert.ok(!guard.acceptsClick("d 1"));
});

test("guard: counts the seconds on screen, without those in the background", () => {
  let time = 0;
  const guard = inputGuard(() => time);
  guard.show("a 1");
  guard.setVisible(true);
  time = 3000;
  guard.setVisible(false);
  time = 60_000;
  guard.setVisible(true);
  time = 61_500;
  assert.equal(guard.seconds(), 4.5);
  guard.show("b 1");
  assert.equal(guard.seconds(), 0);
  assert.equal(questionId({ id: "i", digest: "d" }), "i d");
});

// Drafts

/** A Storage of the browser. */
function memory() {
  const kept = new Map();
  return { get length() { return kept.size; }, key: (at) => [...kept.keys()][at] ?? null, getItem: (key) => kept.get(key) ?? null, setItem: (key, text) => kept.set(key, text), removeItem: (key) => kept.delete(key), kept };
}

test("drafts: per item, digest and user; restored when the question is asked again", () => {
  const storage = memory(), mine = draftStore(storage, "ws/ann"), theirs = draftStore(storage, "ws/bob");
  const draft = { ...NO_DRAFT, comment: "why", form: { a: "1" } };
  mine.save("i", "d1", draft);
  assert.equal(mine.load("i", "d1").comment, "why");
  assert.equal(mine.load("i", "d2"), null);
  assert.equal(theirs.load("i", "d1"), null);
  assert.equal(mine.loadOther("i", "d2").comment, "why");
  assert.equal(mine.loadOther("i2", "d2"), null);
  mine.save("i", "d2", { ...draft, comment: "new" });
  mine.removeOthers("i", "d2");
  assert.equal(mine.loadOther("i", "d2"), null);
  mine.save("i", "d2", NO_DRAFT);
  assert.equal(mine.load("i", "d2"), null, "an empty draft is none");
});

test("drafts: bounded, deleted at sign-out; a full or broken storage loses nothing else", () => {
  const storage = memory(), drafts = draftStore(storage, "ws/ann");
  storage.setItem("other", "kept");
  for (let at = 0; at < 200; at++) drafts.save(`i${at}`, "d", { ...NO_DRAFT, comment: "x" });
  assert.ok(storage.length <= 61, `${storage.length}`);
  storage.setItem('attn-answer "ws/ann" "bad" d', "{not json");
  assert.equal(drafts.load("bad", "d"), null);
  clearDrafts(storage);
  assert.deepEqual([...storage.kept.keys()], ["other"]);
  const full = { ...memory(), setItem() { throw new DOMException("full", "QuotaExceededError"); } };
  draftStore(full, "ws/ann").save("i", "d", { ...NO_DRAFT, comment: "x" });
});

// The question and its outcome

const ME = { user_id: "ann", workspace_id: "ws", role: "OWNER", expires_at: "" };
const NOON = Date.parse("2026-05-20T12:00:00Z");
const item = (more = {}) => ({
  id: "i", digest: "d", state: "unread", title: "T", source: "https://ci.example.org/payments-api/", ask: { options: [option("approve"), option("reject")] },
  deciders: { users: [], roles: ["OWNER", "ADMIN"], excluded: [] }, votes: [], ...more,
});
const decision = (more = {}) => ({ id: "dec_1", option: "approve", does: "approve", state: "made", at: "2026-05-20T12:00:00Z", undo_until: "2026-05-20T12:00:05Z", actors: [{ user: "ann", vote: "approve", at: "" }], ...more });

test("users who may not answer get the reason", () => {
  assert.equal(whyNot(item(), ME), "");
  assert.match(whyNot(item(), { ...ME, role: "MEMBER" }), /decided by every owner or admin/);
  assert.match(whyNot(item(), { ...ME, role: "VIEWER" }), /viewer/);
  assert.match(whyNot(item({ deciders: { users: ["ann"], roles: [], excluded: ["ann"] } }), ME), /You asked for this/);
  assert.equal(whyNot(item({ deciders: { users: ["ann"], roles: [], excluded: [] } }), { ...ME, role: "VIEWER" }), "");
  assert.notEqual(whyNot(item(), null), "", "not before it is known who asks");
  assert.match(decidersText(item({ deciders: { users: ["ann", "bob"], roles: [], excluded: ["eve"] } }), ME), /^you or bob, but not eve$/);
  assert.equal(decidersText(item({ deciders: { users: [], roles: ["ADMIN", "MANAGER", "MEMBER", "OWNER"], excluded: [] } }), ME), "everyone who sees it except viewers");
});

test("open questions, answers without input, and the only answer that may be sent again", () => {
  assert.ok(isOpen(item()) && isOpen(item({ state: "read" })) && !isOpen(item({ state: "decided" })) && !isOpen(item({ state: "resolved" })));
  assert.ok(!asks(item({ ask: undefined })));
  const formed = item({ ask: { form: FORM, options: [option("approve"), option("reject"), option("ignore", { form: FORM })] } });
  assert.deepEqual(formed.ask.options.map((one) => [isPlain(formed, one), formOf(formed, one) !== undefined]), [[false, true], [true, false], [false, true]]);
  assert.ok(!isPlain(item(), option("edit")) && !isPlain(item(), option("reject", { comment: "required" })));
  for (const [returned, ids] of [["refused", ["approve", "reject"]], ["undeliverable", ["approve"]], ["unconfirmed", ["approve"]]]) {
    assert.deepEqual(openOptions(item({ decision: decision({ returned }) })).map((one) => one.id), ids);
  }
});

test("votes so far", () => {
  const voted = item({ ask: { options: [option("approve")], quorum: { approve: 2 } }, needed: 1, votes: [{ user: "ada", name: "Ada", at: "2026-05-20T12:02:00Z", vote: "approve" }] });
  assert.equal(quorumText(voted), "1 of 2");
  assert.match(voteLines(voted, ME, NOON)[0].text, /^Ada approved at \d/);
  assert.equal(quorumText(item()), "");
});

test("every state of a decision has its own text", () => {
  const said = (more, now = NOON + 1000, me = ME) => outcome(item({ state: "decided", decision: decision(more) }), me, now);
  const texts = [said({}), said({}, NOON + 9000), said({ state: "sending" }), said({ state: "applied" }), said({ state: "refused", reason: "too late" }),
    said({ state: "undeliverable", reason: "410" }), said({ state: "sending", returned: "unconfirmed" }), said({ state: "taken_back" }), said({ state: "expired", option: undefined, actors: [] })].map((one) => one.text);
  assert.equal(new Set(texts).size, texts.length, texts.join("\n"));
  assert.match(texts[0], /Decided by you\. It goes to ci\.example\.org\/payments-api in 4 s/);
  assert.match(texts[2], /Decided by you, waiting for ci\.example\.org\/payments-api to take it/);
  assert.match(texts[4], /Refused by .*: too late/);
  assert.match(texts[5], /could not be delivered .*: 410/);
  assert.match(texts[6], /Not confirmed/);
  assert.equal(said({}).left, 4);
  assert.equal(said({}, NOON, { ...ME, user_id: "bob" }).left, 0, "only who decided takes it back");
  assert.equal(secondsToUndo(decision({ state: "sending" }), NOON), 0);
  assert.equal(outcome(item(), ME, NOON), null);
});

test("every answer of the edge is explained", () => {
  const said = (status, data = null) => explainAnswer({ status, data, wait: 2 }, item(), ME, NOON);
  const all = [0, 401, 403, 404, 409, 410, 412, 413, 422, 429, 500].map((status) => said(status));
  assert.equal(new Set(all).size, all.length, all.join("\n"));
  assert.match(said(409, { error: "decided", decision: decision({ actors: [{ user: "bob", name: "Bob", vote: "approve", at: "" }] }) }), /approved by Bob at/);
  assert.match(said(403), /owner or admin/);
  assert.match(said(410, { decision: decision({ state: "expired" }) }), /time ran out/);
  assert.match(said(503), /counts once/);
});

test("errors of a 422 are shown at their fields; others are listed", () => {
  assert.deepEqual(fieldErrors({ "form.a": "required", "args.x": "is not editable" }, new Set(["form.a"])), { byField: { "form.a": "Required." }, others: ["args.x: is not editable"] });
  assert.deepEqual(fieldErrors(undefined, new Set()), { byField: {}, others: [] });
});

test("names of sources", () => {
  for (const [source, name] of [["/pipelines/deploy", "pipelines/deploy"], ["https://a.b/c/", "a.b/c"], ["payments-api", "payments-api"], ["/", "its source"], [undefined, "its source"]]) assert.equal(sourceName({ source }), name);
});

test("a refused answer links only to a sign-in of attn that returns to the page", () => {
  const of = (status, data) => signInAgain({ status, data, wait: null }, { id: "ibx 1" });
  assert.equal(of(403, { sign_in: "/auth/login?strong" }), "/auth/login?strong&return_to=%2F%23item%3Dibx%25201");
  for (const data of [null, {}, { sign_in: 7 }, { sign_in: "https://evil.example/auth/login?" }, { sign_in: "javascript:x" }, { sign_in: "//evil" }]) assert.equal(of(403, data), "");
  assert.equal(of(409, { sign_in: "/auth/login?strong" }), "");
});
