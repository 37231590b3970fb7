"""Blanks the reply token of a rejected record, because more people read dead letters than source topics.

A token is any member `data.ask.reply.token`, or `ask.reply.token` of a record whose value is the data (binary mode).
Consumers use other JSON parsers than attn, so a member counts if any of them could read it:

- Repeated names count each time. Names match in any case and with escapes.
- Arrays and envelopes around the event do not matter, nor do a byte order mark, UTF-16 and UTF-32.
- Text that only `streams.core.asks.tolerant_json` accepts is read too, and so is text in a string: `data_base64`, JSON
  within JSON.

Everything else keeps its bytes.

In text that no parser reads to its end each member named `token` is blanked, whatever contains it.
"""

from __future__ import annotations

import base64
import codecs
import json
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from streams.core.asks.tolerant_json import NotReadable, unescape, values_of

__all__ = ["Blanked", "blank_tokens"]

_PATH = ("data", "ask", "reply", "token")
_MAX_NESTED = 4  # texts within texts

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"), (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# The first bytes of a text that begins with two ASCII characters, as in json.detect_encoding.
_BEGINNINGS = (
    (re.compile(rb"\0\0\0[^\0]", re.DOTALL), "utf-32-be"), (re.compile(rb"[^\0]\0\0\0", re.DOTALL), "utf-32-le"),
    (re.compile(rb"\0[^\0]", re.DOTALL), "utf-16-be"), (re.compile(rb"[^\0]\0", re.DOTALL), "utf-16-le"),
)


def _spelled(name: str) -> str:
    """Returns a pattern of the spellings of a name in any case: with escapes, and in a string within strings."""
    folding = {"k": "\u212a", "s": "\u017f"}  # characters that fold to these letters
    letters = []
    for letter in name:
        codes = [letter, letter.upper(), *folding.get(letter, "")]
        escapes = "|".join(f"u{ord(code):04x}" for code in codes)
        letters.append(f"(?:[{''.join(codes)}]|{escapes})")
    # The bound on backslashes, 4 levels of strings, keeps the search linear.
    return r"\\{0,8}".join(letters)


_ESCAPE_OF_A_LETTER = re.compile(r"u00[4-7]|u017f|u212a")
_ESCAPED_NAMES = re.compile(f"{_spelled('token')}|{_spelled('base')}", re.IGNORECASE)
_QUOTE = r"\\{0,8}[\"']"
_ANY_TOKEN = re.compile(
    rf"{_spelled('token')}(?:\\{{1,8}}u0000[^\"'\\]*)?(?:{_QUOTE})?\s*:\s*(?P<value>"
    r"(?P<quote>[\"'])(?P<text>(?:\\.|(?!(?P=quote))[^\\])*)(?:(?P=quote)|\\?\Z)"
    r"|(?P<inner>\\{1,8}[\"'])(?P<other>.*?)(?:(?<!\\)(?P=inner)|\Z)"
    r"|(?P<bare>[{\[][^}\]]*[}\]]?|[^\s,}\]]+))",
    re.IGNORECASE | re.DOTALL)
_ANY_BASE64 = re.compile(rf"{_spelled('base')}64{_QUOTE}\s*:\s*{_QUOTE}(?P<text>[^\"'\\]*)", re.IGNORECASE)


class Blanked(NamedTuple):
    """`tokens`: the texts that were replaced by ""; empty if the value is unchanged."""

    value: bytes
    tokens: tuple[str, ...]


class _Edit(NamedTuple):
    start: int
    end: int
    text: str


def blank_tokens(value: bytes) -> Blanked:
    """Returns the value with "" for each token. A value without a token is returned as it is. Never raises."""
    tokens: list[str] = []
    return Blanked(_blank_bytes(value, (), tokens, 0), tuple(tokens))


def _blank_bytes(value: bytes, path: tuple[str, ...], tokens: list[str], nested: int) -> bytes:
    for text, encode in _readings(value):
        if edits := _edits_of(text, path, tokens, nested):
            return encode(_apply(text, edits))
    return value


def _readings(value: bytes) -> Iterator[tuple[str, Callable[[str], bytes]]]:
    """Yields the text, and how to encode it again. Both lose nothing, whatever the bytes are.

    Bytes that begin as UTF-16 or UTF-32 are also read as UTF-8.
    """
    encoding = next((name for mark, name in _MARKS if value.startswith(mark)), None) or next(
        (name for beginning, name in _BEGINNINGS if beginning.match(value)), None)
    if encoding is not None:
        whole = len(value) - len(value) % (4 if "32" in encoding else 2)
        try:
            text = value[:whole].decode(encoding, "surrogatepass")
            if text.encode(encoding, "surrogatepass") == value[:whole]:
                yield text, lambda changed: changed.encode(encoding, "surrogatepass") + value[whole:]
        except UnicodeError:
            pass
    yield value.decode("utf-8", "surrogateescape"), lambda changed: changed.encode("utf-8", "surrogateescape")


def _edits_of(text: str, path: tuple[str, ...], tokens: list[str], nested: int) -> list[_Edit]:
    """Returns what to replace, in order, without overlaps. `path`: of the text itself."""
    if not _may_have_token(text):
        return []
    edits: list[_Edit] = []
    found: list[str] = []
    try:
        for value in values_of(text, path):
            if _is_token(value.path):
                if text[value.start:value.end] == '""':
                    continue  # nothing to replace
                found.append(_text_of(text[value.start:value.end], value.is_string))
                edits.append(_Edit(value.start, value.end, '""'))
            elif value.is_string and nested < _MAX_NESTED:
                edits += _edits_of_string(text, value.start + 1, value.end - 1, value.path, found, nested)
    except NotReadable:
        if path != _PATH[:len(path)]:
            return []
        found.clear()
        edits = _edits_anywhere(text, found, nested)
    tokens += found
    return _without_inner(edits)


def _may_have_token(text: str) -> bool:
    """Returns False if a quick look at the text finds neither a name nor an escape that may spell one."""
    folded = text.casefold()
    if "token" in folded or "base64" in folded:
        return True
    if "\\" not in folded:
        return False
    plain = folded.replace("\\", "")
    return "token" in plain or (
        _ESCAPE_OF_A_LETTER.search(plain) is not None and _ESCAPED_NAMES.search(plain) is not None)


def _is_token(path: tuple[str, ...]) -> bool:
    return path == _PATH or path == _PATH[1:]


def _edits_of_string(
    text: str, start: int, end: int, path: tuple[str, ...], tokens: list[str], nested: int,
) -> list[_Edit]:
    """Returns the edits of a string that has JSON in it, as it is or in base64."""
    if path[-1:] == ("data_base64",):
        return _edits_of_base64(text, start, end, tokens, nested)
    raw = text[start:end]
    if "{" not in raw and "u007b" not in raw.lower():
        return []
    inside = unescape(raw)
    return [
        _Edit(start + inside.source(edit.start), start + inside.source(edit.end), json.dumps(edit.text)[1:-1])
        for edit in _edits_of(inside.text, path, tokens, nested + 1)
    ]


def _edits_of_base64(text: str, start: int, end: int, tokens: list[str], nested: int) -> list[_Edit]:
    """Returns the edit of a `data_base64`: all of its text, in the alphabet that it has."""
    written = unescape(text[start:end]).text
    digits = re.sub(r"[^A-Za-z0-9+/]", "", written.translate({ord("-"): "+", ord("_"): "/"}))
    digits = digits[:-1] if len(digits) % 4 == 1 else digits
    value = base64.b64decode(digits + "=" * (-len(digits) % 4))
    blanked = _blank_bytes(value, _PATH[:1], tokens, nested + 1)
    if blanked is value:
        return []
    encoded = base64.b64encode(blanked).decode()
    return [_Edit(start, end, encoded.translate({ord("+"): "-", ord("/"): "_"})
                  if "-" in written or "_" in written else encoded)]


def _edits_anywhere(text: str, tokens: list[str], nested: int) -> list[_Edit]:
    """Returns the edits of text that cannot be read to its end."""
    edits = []
    for match in _ANY_TOKEN.finditer(text):
        before = text[max(0, match.start() - 16):match.start()].rstrip("\\")[-1:]
        if before.isalnum() or before in ("_", "-", "$", "."):
            continue  # the end of a longer name
        quote = match["quote"] or match["inner"] or '"'
        if text[match.start("value"):match.end()] == quote * 2:
            continue
        tokens.append(match["text"] or match["other"] or match["bare"] or "")
        edits.append(_Edit(match.start("value"), match.end(), quote * 2))
    for match in _ANY_BASE64.finditer(text):
        edits += _edits_of_base64(text, *match.span("text"), tokens, nested)
    return edits


def _text_of(raw: str, is_string: bool) -> str:
    if not is_string:
        return raw
    return unescape(raw[1:-1]).text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _without_inner(edits: list[_Edit]) -> list[_Edit]:
    """Returns the edits in order, without those that lie within another."""
    kept: list[_Edit] = []
    for edit in sorted(edits, key=lambda edit: (edit.start, -edit.end)):
        if not kept or edit.start >= kept[-1].end:
            kept.append(edit)
    return kept


def _apply(text: str, edits: list[_Edit]) -> str:
    parts, at = [], 0
    for edit in edits:
        parts += [text[at:edit.start], edit.text]
        at = edit.end
    return "".join([*parts, text[at:]])
