"""Dead letters have no reply token, for any record; the rest of the record keeps its bytes."""

from __future__ import annotations

import base64
import json
import random
from types import SimpleNamespace
from typing import Any

import msgspec
import orjson
import pytest
from aiokafka import ConsumerRecord
from fuzz.cloudevents import Token, written
from hypothesis import example, given
from hypothesis import strategies as st
from support.examples import law

from ops.cli.data.dead_letters import DeadLetterRecord, can_export, can_retry, export_line, why_not
from ops.cli.data.event_files import CHECK_SEALER, parse_line
from ops.cli.dead_letter_output import row_of
from schemas.dead_letters import DeadLetter
from schemas.settings import Settings
from streams.consumer.gap_filler import GapFiller
from streams.core.asks.blanking import blank_tokens
from streams.core.asks.tolerant_json import NotReadable, values_of
from streams.core.normalise import Rejected, normalise
from streams.ingest import agent
from streams.ingest.rejects import to_dead_letter
from streams.kafka.records.batches import Unreadable

SECRET = "s3cr3t-Tok3n_0123456789"
OTHER = "other-0123456789"


def event(ask: Any = None, **data: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": "i", "source": "/s", "type": "waitpoint.created", "subject": "x",
            "time": "2026-05-20T08:14:22Z", "workspaceid": "w",
            "data": {"title": "t", "ask": ask if ask is not None else {"reply": {"to": "a", "token": SECRET}}, **data}}


PLAIN = json.dumps(event(payload={"token": "kept", "reply": {"token": "kept"}}))
LITERAL = json.dumps(SECRET)

# Texts with the token once, as `<>`. At least one common JSON parser reads each as the member.
SPELLINGS = {
    "as it is": PLAIN.replace(LITERAL, "<>"),
    "binary mode": json.dumps(event()["data"]).replace(LITERAL, "<>"),
    "byte order mark": "\ufeff" + PLAIN.replace(LITERAL, "<>"),
    "escaped name": PLAIN.replace('"token": ' + LITERAL, r'"\u0074\u006F\u006bEn": <>'),
    "escaped names around": PLAIN.replace('"ask"', r'"\u0061sk"').replace('"data"', r'"d\u0061ta"').replace(
        LITERAL, "<>"),
    "other case": PLAIN.replace('"token": ' + LITERAL, '"ToKEN": <>').replace('"data"', '"Data"'),
    "characters that fold": PLAIN.replace('"token": ' + LITERAL, '"to\u212aen": <>').replace('"ask"', '"a\u017fk"'),
    "NUL after the name": PLAIN.replace('"token": ' + LITERAL, r'"token\u0000x": <>'),
    "a list of asks": PLAIN.replace('"ask": {', '"ask": [{').replace(LITERAL + "}}", "<>}}]"),
    "a batch": "[" + PLAIN.replace(LITERAL, "<>") + "]",
    "an envelope": '{"schema": {}, "payload": ' + PLAIN.replace(LITERAL, "<>") + "}",
    "lines": json.dumps(event({})) + "\n" + PLAIN.replace(LITERAL, "<>"),
    "a trailing comma": PLAIN.replace(LITERAL, "<>,"),
    "comments": PLAIN.replace('"token": ' + LITERAL, '"token" /* } */ : // "\n <>'),
    "a name without quotes": PLAIN.replace('"token": ' + LITERAL, "token: <>"),
    "a number that only Python reads": PLAIN.replace('"t"', "NaN").replace(LITERAL, "<>"),
    "white space": json.dumps(event(), indent="\t").replace(LITERAL, "<>"),
}
VALUES = {
    "text": LITERAL, "escapes": '"' + "".join(rf"\u{ord(sign):04x}" for sign in SECRET) + '"',
    "half a surrogate pair": LITERAL[:-1] + r'\ud83d"', "quotes within": json.dumps(SECRET + '"}}'),
    "an object": json.dumps({"a": [SECRET]}), "a list": json.dumps([SECRET, {}]), "a number": "1234567890123456",
    "single quotes": f"'{SECRET}'",
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16", "utf-32-be"])
def test_the_member_is_blanked_and_nothing_else(spelling: str, value: str, encoding: str) -> None:
    blanked = blank_tokens(spelling.replace("<>", value).encode(encoding))
    assert blanked.value.decode(encoding) == spelling.replace("<>", '""')
    assert len(set(blanked.tokens)) >= 1


def test_bytes_that_are_not_utf8_are_kept() -> None:
    raw = PLAIN.encode().replace(b'"t"', b'"\xff\xed\xa0\xbd"')
    assert blank_tokens(raw).value == raw.replace(LITERAL.encode(), b'""')
    odd = PLAIN.encode("utf-16-le") + b"x"
    assert blank_tokens(odd).value == PLAIN.replace(LITERAL, '""').encode("utf-16-le") + b"x"


@pytest.mark.parametrize("name", ["data", "ask", "reply", "token"])
def test_each_of_repeated_names_counts(name: str) -> None:
    inner = json.dumps(OTHER)
    for outer in ("token", "reply", "ask", "data")[:("token", "reply", "ask", "data").index(name)]:
        inner = f'{{"{outer}": {inner}}}'
    for raw in (PLAIN.replace(f'"{name}": ', f'"{name}": {inner}, "{name}": ', 1),
                PLAIN.replace(f'"{name}": ', f'"{name}": {inner}, "{name.upper()}": ', 1)):
        blanked = blank_tokens(raw.encode())
        assert blanked.value.decode() == raw.replace(LITERAL, '""').replace(json.dumps(OTHER), '""')
        assert set(blanked.tokens) == {SECRET, OTHER}


@pytest.mark.parametrize("raw", [
    PLAIN.replace('"ask"', '"asks"'), PLAIN.replace('"reply"', '"replies"'), json.dumps({"token": SECRET}),
    json.dumps(event({}, payload={"ask": {"reply": {"token": SECRET}}})), json.dumps({"data": {"reply": {"token": 1}}}),
    json.dumps({"data": {"ask": {"reply": "token"}}}), json.dumps({"data": {"ask": {"token": {"reply": SECRET}}}}), "",
    PLAIN.replace('"token": ' + LITERAL, '"token_id": ' + LITERAL), "token", '"token"', "\\" * 99 + "token",
], ids=range(12))
def test_other_members_are_kept(raw: str) -> None:
    value = raw.encode()
    blanked = blank_tokens(value)
    assert blanked.value is value
    assert blanked.tokens == ()


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode, lambda raw: base64.b64encode(raw)[:-1]])
@pytest.mark.parametrize("inner", ["\ufeff", "", " "])
def test_data_in_base64_is_searched(encode: Any, inner: str) -> None:
    data = (inner + json.dumps(event(title="\u00ff\u00fe?>")["data"])).encode()
    raw = json.dumps({"specversion": "1.0", "data_base64": encode(data).decode(), "id": "i"})
    blanked = blank_tokens(raw.encode())
    assert blanked.tokens == (SECRET,)
    packed = json.loads(blanked.value)["data_base64"]
    assert base64.b64decode(packed.translate({45: "+", 95: "/"}) + "==") == data.replace(LITERAL.encode(), b'""')
    kept = raw.encode().replace(encode(data), packed.encode())
    assert kept == blanked.value


def test_json_in_a_string_is_searched() -> None:
    data = json.dumps(event()["data"])
    for raw in (json.dumps({**event(), "data": data}), json.dumps(json.dumps(PLAIN)),
                json.dumps(event({"reply": json.dumps({"token": SECRET})})),
                json.dumps(event(json.dumps({"reply": {"token": SECRET}}))).replace("{", r"\u007b").replace(
                    r"\u007b", "{", 2)):
        blanked = blank_tokens(raw.encode())
        assert blanked.tokens == (SECRET,)
        assert SECRET not in blanked.value.decode()
        quoted = next(form for form in (json.dumps(LITERAL)[1:-1], json.dumps(json.dumps(LITERAL)[1:-1])[1:-1])
                      if form in raw)
        assert blanked.value.decode() == raw.replace(quoted, quoted.replace(SECRET, ""))


@pytest.mark.parametrize("broken", [
    PLAIN[:PLAIN.index(SECRET) + 15], PLAIN[:-2], PLAIN.replace('"t"', "[}"), PLAIN + "}",
    PLAIN.replace('"token": ', '"token" : \n'), json.dumps(json.dumps(PLAIN))[:-9], "[" * 300 + PLAIN,
    PLAIN.replace('"token"', r'"\u0074oken"')[:-1], PLAIN.replace(LITERAL, f'{{"a": {LITERAL}}}')[:-1],
    json.dumps({"data_base64": base64.b64encode(PLAIN.encode()).decode()})[:-1],
    PLAIN.replace(LITERAL, f"'{SECRET}")[:-1],
    "\x00\x01garbage" + PLAIN + "\x00", "[1," * 1 + "1," * 210_000 + PLAIN + "]",
])
def test_unreadable_text_has_no_member_named_token(broken: str) -> None:
    blanked = blank_tokens(broken.encode())
    assert blanked.tokens
    for form in (SECRET, SECRET[:15], base64.b64encode(SECRET.encode()).decode()):
        assert form not in blanked.value.decode()
    assert blank_tokens(blanked.value).value == blanked.value


@pytest.mark.parametrize("raw", [
    json.dumps(event({"reply": {"to": "a", "token": ""}})),
    json.dumps({"outer": json.dumps(event({"reply": {"token": ""}}))}),
    '{"data": {"ask": {"reply": {"token": ""}', "{'token': ''", r'{"x": "{\"token\": \"\"',
])
def test_an_empty_token_is_not_blanked(raw: str) -> None:
    assert blank_tokens(raw.encode()) == (raw.encode(), ())


def test_a_blanked_record_is_rejected_again_and_never_accepted_without_its_token() -> None:
    for raw in (PLAIN, json.dumps({**event(), "data_base64": base64.b64encode(json.dumps(
            event()["data"]).encode()).decode(), "data": None})):
        assert normalise("waitpoints", raw.encode(), sealer=CHECK_SEALER)
        with pytest.raises(Rejected, match=r"data\.ask\.reply\.token: String should have at least 1 character"):
            normalise("waitpoints", blank_tokens(raw.encode()).value, sealer=CHECK_SEALER)


# --- at random ---

names = st.sampled_from(["data", "ask", "reply", "token", "Token", "a", "x", "payload"])
trees = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.text(max_size=3)),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=3), max_leaves=8)


@law(300)
@given(trees, st.integers(0, 1 << 32), st.lists(st.sampled_from(["", ",", "}", "]", '"', "'", "//", "\\"]), max_size=3))
@example({"ask": {"reply": {"token": 1}}}, 1, [])
def test_blanking_changes_no_other_member(tree: Any, seed: int, damage: list[str]) -> None:
    rng = random.Random(seed)
    raw = written(rng, {"data": {"ask": {"reply": {"token": Token(LITERAL), "x": tree}, "y": tree}, "z": tree}},
                  rng.randint(0, 1))
    for piece in damage:
        at = rng.randrange(len(raw))
        raw = raw[:at] + piece + raw[at:]
    blanked = blank_tokens(raw.encode())
    assert SECRET not in blanked.value.decode() or SECRET not in raw or damage
    pairs = _pairs(raw)
    if pairs is not None:
        assert _pairs(blanked.value.decode()) == _blanked(pairs, ())
        assert blanked.tokens or damage
    assert blank_tokens(blanked.value).value == blanked.value, "blanking is idempotent"


def _pairs(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: ("object", pairs))
    except ValueError:
        return None


def _blanked(node: Any, path: tuple[str, ...]) -> Any:
    """Reference implementation over a parsed tree."""
    path = path[-4:]
    if path in (("data", "ask", "reply", "token"), ("ask", "reply", "token")):
        return ""
    if isinstance(node, tuple):
        return node[0], [(name, _blanked(part, (*path, name.partition("\0")[0].casefold()))) for name, part in node[1]]
    return [_blanked(part, path) for part in node] if isinstance(node, list) else node


@law(200)
@given(trees, st.integers(0, 1 << 32))
def test_every_json_text_is_readable(tree: Any, seed: int) -> None:
    text = written(random.Random(seed), tree, seed % 2)
    *_, last = values_of(text)
    assert json.loads(text[last.start:last.end]) == json.loads(text)


@given(st.binary(max_size=200) | st.text(max_size=80).map(str.encode) | st.lists(st.sampled_from(
    ["{", "}", "[", "]", '"', "'", ":", ",", "\\", "token", "data", "ask", "reply", "base64", "u0074", "/*", "//"]),
    max_size=30).map(lambda parts: "".join(parts).encode()))
def test_any_bytes_are_taken(value: bytes) -> None:
    blanked = blank_tokens(value)
    assert blanked.tokens or blanked.value == value
    try:
        list(values_of(value.decode("utf-8", "surrogateescape")))
    except NotReadable:
        pass


# --- the letters ---

def record(value: bytes | None, **more: Any) -> ConsumerRecord[bytes, bytes]:
    fields: dict[str, Any] = {"topic": "waitpoints", "partition": 1, "offset": 7, "key": b"k", "headers": (), **more}
    return SimpleNamespace(value=value, **fields)  # type: ignore[return-value]


def test_a_blanked_dead_letter_is_marked() -> None:
    letter = to_dead_letter(
        record(PLAIN.encode(), key=PLAIN.encode(), headers=[("copy", PLAIN.encode()), ("x", None)]),
        f"title: {SECRET} is too long", "fields", 5)
    assert letter.reason == "title: [redacted] is too long"
    blank = PLAIN.replace(LITERAL, '""').encode()
    assert (letter.value, letter.key, letter.headers) == (blank, blank, [("copy", blank), ("x", b"")])
    fitted = letter.fit(1 << 20)
    again = DeadLetter.from_record(fitted.key, fitted.value, fitted.record_headers())
    assert again.blanked == 3
    assert not again.truncated
    untouched = to_dead_letter(record(b"{"), "r", "json", 5)
    assert untouched.blanked == 0
    assert "attn-blanked" not in dict(untouched.record_headers())
    assert to_dead_letter(record(None), "r", "empty", 5).value is None


def test_a_blanked_dead_letter_is_exported_and_not_retried() -> None:
    letter = to_dead_letter(record(PLAIN.encode()), "r", "fields", 5)
    assert not can_retry(letter)
    assert "its reply token was blanked" in str(why_not(letter))
    assert can_export(letter)
    kept = DeadLetterRecord((0, 1), SimpleNamespace(), letter)  # type: ignore[arg-type]
    line = export_line(kept)
    assert line["blanked"] == 1
    assert parse_line(msgspec.json.encode(line)).bytes_of_value == letter.value
    assert row_of(kept)["blanked"] == 1
    assert can_retry(to_dead_letter(record(b"{"), "r", "json", 5))
    assert not can_export(letter.fit(100))
    assert not can_export(None)


class _Producer:
    """Replaces the ingestor's producer; these tests write nothing."""


def test_an_ingestor_blanks_every_kind_of_reject_and_logs_no_token(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ingestor = agent.Ingestor(Settings(_env_file=None), _Producer(), GapFiller(None, None))  # type: ignore[arg-type, call-arg]
    no_key = record(PLAIN.encode())
    large = record(json.dumps(event(body_md="x" * (2 << 20))).encode())
    wrong = record(PLAIN.replace('"title": "t"', '"title": 1').encode())
    for rejected in (no_key, large, wrong):
        assert ingestor._process_record(rejected) is False

    def fails(*_: Any) -> None:
        raise RuntimeError(f"{SECRET} in a bug")

    with monkeypatch.context() as patch:
        patch.setattr(agent, "normalise", fails)
        assert ingestor._process_record(no_key) is False
        assert ingestor._process_record(record(b"{}")) is False
    raw = b"\x00" + PLAIN.encode()
    ingestor._process_record(Unreadable(
        "waitpoints", 1, 9, 0, 0, None, raw, None, 0, len(raw), (), reason="broken", first=9, size=len(raw) + 5))
    letters = ingestor._rejects
    assert [letter.cause for letter in letters] == ["key", "size", "fields", "fault", "fault", "unreadable"]
    assert [letter.blanked for letter in letters] == [1, 1, 1, 1, 0, 1]
    assert letters[-1].size == len(letters[-1].value or b"") + 5
    assert not [letter for letter in letters if SECRET in repr(letter) and letter.blanked]
    with_token, without = (entry.getMessage() for entry in caplog.records if "normalise failed" in entry.getMessage())
    assert with_token.endswith("\nRuntimeError")
    assert without.endswith(f"\nRuntimeError: {SECRET} in a bug"), "an exception about another record keeps its text"
    assert orjson.loads(letters[0].value or b"")["data"]["ask"]["reply"] == {"to": "a", "token": ""}
