"""Generates source records: the examples with random changes of structure and bytes.

Python values represent JSON. A `Token` is written unchanged, and an unpaired surrogate as an escape.
"""

from __future__ import annotations

import base64
import copy
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import orjson

import schemas
from schemas.sources import MODELS
from schemas.topics import DECISION_REPORTS, SOURCE_TYPES, TOPIC_OF_TYPE

__all__ = ["SECRET", "Record", "Token", "make"]

EXAMPLES = {
    path.stem: orjson.loads(path.read_bytes())
    for path in sorted((Path(schemas.__file__).parent / "examples").glob("*.json")) if path.stem in MODELS
}
ASKS = [
    orjson.loads(path.read_bytes())["data"]["ask"]
    for path in sorted((Path(schemas.__file__).parent / "examples").glob("*.ask-*.json"))
]
SECRET = "Zq81mKv0PpXw"  # part of each reply token
_HALF = re.compile("[\ud800-\udfff]")
Headers = list[tuple[str, bytes | None]]


class Record(NamedTuple):
    """A source record. `valid`: CONTRACT §10 allows all changes, so attn must accept the record."""

    topic: str
    value: bytes | None
    headers: Headers
    valid: bool


class Token(str):
    """JSON text that is written unchanged."""


NUMBERS = (
    "0", "-0", "0.10", "1e400", "-1E+99999", "1e-400", "9007199254740993", "18446744073709551616", "1.0",
    "123456789012345678901234567890",
    "0." + "3" * 300, "7" * 400, "-" + "7" * 5000, "1" + "0" * 310, "2.50e+1",
)
TEXTS = (
    "", " ", "a", "é", "😀", "\ud83d", "\ude00", "\ude00\ud83d", "a\ud83d", "\ud83d\\ude00", "\0", "\x1f", "\x7f",
    "\x85", "\u2028", "\u2029",
    "\u202e", "\ufeff", "\ufffd", "\uffff", "e\u0301", "\u200d", "\r\n", "\n\ndata: x", "id: 1", "\\", "\\u0041", '"',
    "</script>", "%2F", "../x",
    "{case:String}", "\\N", "null", "a" * 512, "😀" * 512, "a" * 513, "a" * 2049, "<b>", "[x](javascript:y)", "\t",
)
TIMES = (
    "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "0000-01-01T00:00:00Z", "1969-12-31T23:59:59.999999999Z",
    "1970-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z", "9999-12-31T23:59:60-14:00", "2016-12-31T23:59:60Z", "2026-05-20t08:14:22z",
    "2026-05-20 08:14:22-00:00",
    "2026-05-20T08:14:22." + "9" * 300 + "Z", "2026-05-20T08:14:22.1+23:59", "2199-12-31T23:59:59.999999Z",
)
GOOD_TIMES = tuple(time for time in TIMES if time[:4] in ("2016", "2026", "1970", "2199"))
URLS = (
    "/", "/a", "//h", "/\\h", "/\th", "http://h", "HTTPS://h:80/x", "http://u@h", "http:///h", "javascript:x",
    "/\u202e", "/\0", "http://[::1",
    "http://h:99999", "mailto:a", "a" * 5000, "/" + "a" * 2047, "http://ä.example", "http://h\uff0fx", "http://\u2100",
)
HEADERS = ("ce_id", "CE_TYPE", "ce_", "content-type", "é", "", "ce_specversion", "attn-reason", "ce_\udcff", "\udced")
HEADER_VALUES = (None, b"", b"\xff", b"1.0", b"application/cloudevents+json", b"\xed\xa0\xbd", b"a" * 600)
PIECES = (
    b"\xef\xbb\xbf", b"\xed\xa0\xbd", b"\\ud83d", b"\\", b'"', b"\0", b"[" * 2000, b"1e999", b",", b"NaN", b"//")
WORDS = ("low", "urgent", "OWNER", "VIEWER", "user", "ai", "auto", "critical", "BLOCKED", "OPEN", "1.0",
    "0.3", *TIMES, *URLS)


def text(rng: random.Random, longest: int = 5) -> str:
    """Returns a text of at most `longest` random parts. It is not blank and has at most 512 characters."""
    parts = [rng.choice(TEXTS) for _ in range(rng.randint(0, longest))]
    return ("x" + "".join(parts))[:500] if rng.random() < 0.9 else "x" * 512


def tree(rng: random.Random, depth: int = 4) -> Any:
    kind = rng.random()
    if kind < 0.3:
        return Token(rng.choice(NUMBERS))
    if kind < 0.6 or depth == 0:
        return rng.choice((rng.choice(TEXTS), rng.choice(WORDS), True, False, None, text(rng)))
    if kind < 0.62:
        return deep(rng.randint(1, 90), rng.choice(NUMBERS))
    if kind < 0.8:
        return [tree(rng, depth - 1) for _ in range(rng.randint(0, 4))]
    return members(rng, depth - 1)


def members(rng: random.Random, depth: int = 3) -> dict[str, Any]:
    return {rng.choice(TEXTS) + rng.choice(("", "k", "payload", "data")): tree(rng, depth)
            for _ in range(rng.randint(0, 4))}


def deep(levels: int, inner: str) -> Token:
    return Token('[{"a":' * (levels // 2) + "[" * (levels % 2) + inner + "]" * (levels % 2) + "}]" * (levels // 2))


# --- changes that keep an event valid; arguments: its `data` and the event ---

def _payload(rng: random.Random, data: dict[str, Any], event: dict[str, Any]) -> None:
    data["payload"] = members(rng)


def _unknown(rng: random.Random, data: dict[str, Any], event: dict[str, Any]) -> None:
    rng.choice((data, event))["x" + rng.choice(TEXTS)] = tree(rng)


def _title(rng: random.Random, data: dict[str, Any], event: dict[str, Any]) -> None:
    data["title"] = text(rng)


def _identity(rng: random.Random, data: dict[str, Any], event: dict[str, Any]) -> None:
    event[rng.choice(("id", "subject", "source"))] = text(rng)
    names = ("case_id", "session_id", "cluster", "by_user_id", "stack", "case_title", "conversation_id")
    data[rng.choice(names)] = text(rng)


def _moment(rng: random.Random, data: dict[str, Any], event: dict[str, Any]) -> None:
    data[rng.choice(("due_at", "expires_at"))] = rng.choice((*TIMES, "", None))


def _time(rng: random.Random, data: dict[str, Any], event: dict[str, Any]) -> None:
    event["time"] = rng.choice(GOOD_TIMES)


def _link(rng: random.Random, data: dict[str, Any], event: dict[str, Any]) -> None:
    data["action_url"] = rng.choice((*URLS, *TEXTS))


def _shape(rng: random.Random, data: dict[str, Any], event: dict[str, Any]) -> None:
    """Sets one of a few subjects and cases: events of several types then open, update and close the same items."""
    event["subject"], event["id"] = rng.choice(("s1", "s2", "/")), f"e{rng.randrange(1 << 40)}"
    data["case_id"] = rng.choice(("c1", "a/b#c"))


def _ask(rng: random.Random, data: dict[str, Any], event: dict[str, Any]) -> None:
    ask = copy.deepcopy(rng.choice(ASKS))
    if rng.random() < 0.7:
        ask["reply"] = {"token": SECRET + text(rng), **rng.choice(({}, {"to": "x", "confirm": False}))}
    if rng.random() < 0.5:
        ask["action"] = {"editable": True, **ask.get("action", {"name": text(rng, 1)[:256]}), "args": members(rng)}
    if rng.random() < 0.3:
        ask["id"] = text(rng)
    if rng.random() < 0.3:
        ask["x" + rng.choice(TEXTS)] = tree(rng)
    if rng.random() < 0.2 and "on_expiry" not in ask:
        ask["expires_at"] = rng.choice((*TIMES, "", None))
    data["ask"] = ask


VALID: tuple[Callable[[random.Random, dict[str, Any], dict[str, Any]], None], ...] = (
    _payload, _payload, _unknown, _title, _identity, _moment, _time, _link, _shape, _shape, _ask, _ask)


# --- writing ---

def written(rng: random.Random, node: Any, style: int) -> str:
    """Returns JSON text. `style` 0: compact, without needless escapes; 1: with random white space and escapes."""
    if isinstance(node, Token):
        return str(node)
    if isinstance(node, str):
        return _string(rng, node, style)
    gap = (lambda: rng.choice(("", "", " ", "\n", "\r\n\t"))) if style else (lambda: "")
    if isinstance(node, dict):
        inside = ",".join(f"{gap()}{_string(rng, name, style)}{gap()}:{gap()}{written(rng, one, style)}{gap()}"
                          for name, one in node.items())
        return "{" + inside + gap() + "}"
    if isinstance(node, list):
        return "[" + ",".join(f"{gap()}{written(rng, one, style)}{gap()}" for one in node) + "]"
    return orjson.dumps(node).decode()


def _string(rng: random.Random, value: str, style: int) -> str:
    if style and len(value) < 20:  # JSON allows an escape for every character
        return '"' + "".join(_escaped(sign) if rng.random() < 0.2 or not sign.isprintable() or sign in '"\\' else sign
                             for sign in value) + '"'
    return _HALF.sub(lambda half: _escaped(half[0]), json.dumps(value, ensure_ascii=bool(style) and rng.random() < 0.5))


def _escaped(sign: str) -> str:
    units = sign.encode("utf-16-be", "surrogatepass")
    return "".join(rf"\u{units[at]:02x}{units[at + 1]:02X}" for at in range(0, len(units), 2))


def _doubled(rng: random.Random, raw: str) -> str:
    """Returns the JSON object with a member twice: first with a random value."""
    name = rng.choice(("title", "payload", "data", "time", "type", "id", "workspaceid", "specversion"))
    return "{" + f'"{name}":{written(rng, tree(rng, 2), 0)},' + raw[1:] if f'"{name}"' in raw else raw


def make(rng: random.Random) -> Record:
    event_type = rng.choice(sorted(EXAMPLES))
    event = {**EXAMPLES[event_type], "workspaceid": "w1"}
    data = event["data"] = dict(event.get("data") or {})
    for _ in range(rng.randint(0, 4)):
        rng.choice(VALID)(rng, data, event)
    valid = rng.random() < 0.6
    if not valid:
        _spoil(rng, event, data)
    topic = rng.choice(sorted(SOURCE_TYPES)) if event_type in DECISION_REPORTS else TOPIC_OF_TYPE[event_type]
    record = _record(rng, topic, event, valid)
    return record if valid else _damaged(rng, record)


def _record(rng: random.Random, topic: str, event: dict[str, Any], valid: bool) -> Record:
    mode, style = rng.random(), rng.randint(0, 1)
    bom = "\ufeff" if rng.random() < 0.1 else ""
    data = event.get("data")
    if mode < 0.2 and all(_in_header(name) and _in_header(event[name]) for name in event if name != "data"):
        headers: Headers = [(f"ce_{name}", str(value).encode()) for name, value in event.items() if name != "data"]
        rng.shuffle(headers)
        return Record(topic, (bom + written(rng, data, style)).encode(), headers, valid)
    if mode < 0.3 and isinstance(data, dict):
        packed = base64.b64encode((bom + written(rng, data, style)).encode()).decode()
        event = {**{name: value for name, value in event.items() if name != "data"}, "data_base64": packed}
    raw = written(rng, event, style)
    if rng.random() < 0.1 and style == 0:
        raw = _doubled(rng, raw)
    return Record(topic, (bom + raw).encode(), [], valid)


def _in_header(value: Any) -> bool:
    return isinstance(value, str) and not isinstance(value, Token) and _HALF.search(value) is None


# --- changes that may make a record invalid ---

def _spoil(rng: random.Random, event: dict[str, Any], data: dict[str, Any]) -> None:
    model: Any = MODELS[event["type"]].model_fields["data"].annotation
    for _ in range(rng.randint(0, 3)):
        target = rng.choice((event, data))
        names = [*event] if target is event else [*model.model_fields, "editor", "steps", "state"]
        if rng.random() < 0.2:
            target.pop(rng.choice(names), None)
        else:
            target[rng.choice(names)] = rng.choice((
                tree(rng), rng.choice(TEXTS), rng.choice(WORDS), Token(rng.choice(NUMBERS)),
                deep(rng.choice((101, 3000, 100_000)), "1"),
                [{"title": text(rng), "mode": "auto"}] * rng.choice((1, 501)), {"type": "ai", "id": text(rng)},
                Token("NaN")))
    if isinstance(data.get("ask"), dict):
        _spoil_ask(rng, data["ask"])


def _spoil_ask(rng: random.Random, ask: dict[str, Any]) -> None:
    """Changes the value or the name of one member at a random depth."""
    inner, first = ask, "reply"
    while isinstance(inner, dict) and inner:
        name = rng.choice(sorted(inner))
        if isinstance(inner[name], list) and inner[name]:
            inner[name] = [*inner[name], inner[name][0]]
        if not isinstance(inner[name], dict) or rng.random() < 0.3:
            value = inner.pop(name)
            # Only the token in `reply` is secret; a member `token` elsewhere is not, as in arguments of an action.
            token = {"token": SECRET if first == "reply" else "public"}
            inner[rng.choice((name, name, name.upper(), "token"))] = rng.choice((
                value, tree(rng, 2), rng.choice(TEXTS), Token(rng.choice(NUMBERS)), token, [value]))
            return
        first = name if inner is ask else first
        inner = inner[name]


def _damaged(rng: random.Random, record: Record) -> Record:
    topic, value, headers = record.topic, record.value or b"", list(record.headers)
    kind = rng.random()
    if kind < 0.3:
        pass
    elif kind < 0.6:
        value = _bytes(rng, value)
    elif kind < 0.7:
        encoding = rng.choice(("utf-16", "utf-16-le", "utf-32", "utf-32-be", "cp1252"))
        value = value.decode("utf-8", "replace").encode(encoding, "replace")
    elif kind < 0.85 or not headers:
        headers += [(rng.choice(HEADERS), rng.choice(HEADER_VALUES)) for _ in range(rng.randint(1, 3))]
    else:
        headers.pop(rng.randrange(len(headers)))
    return Record(rng.choice((topic, topic, "cases")), value if rng.random() < 0.98 else None, headers, False)


def _bytes(rng: random.Random, value: bytes) -> bytes:
    raw = bytearray(value)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(raw) + 1)
        kind = rng.randrange(5)
        if kind == 0:
            raw[at:at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            del raw[at:at + rng.choice((1, 2, 20, 1000))]
        elif kind == 2:
            raw[at:at] = rng.choice(PIECES)
        elif kind == 3:
            raw[at:at] = raw[at // 2:at]
        else:
            del raw[at:]
    return bytes(raw)
