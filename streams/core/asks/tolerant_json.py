"""Finds the values of JSON text with their places, as the most tolerant parsers read it.

Accepted besides RFC 8259: comments, single quotes, names without quotes, commas that are missing or too many, and
several values one after another. Nothing is interpreted: a value is a range of the text.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["MAX_PATH", "NotReadable", "Unescaped", "Value", "unescape", "values_of"]

MAX_PATH = 4  # names that a path has at most: the innermost
_MAX_DEPTH = 200  # levels of objects and arrays
_MAX_PIECES = 200_000  # strings, numbers and brackets: about 0.2 s

_GAP = re.compile(r"(?:[\s,\ufeff]++|//[^\n\r]*+|/\*.*?\*/)++", re.DOTALL)
_PIECE = re.compile(
    r'''(?P<string>"[^"\\]*+(?:\\.[^"\\]*+)*+"|'[^'\\]*+(?:\\.[^'\\]*+)*+')'''
    r'''|(?P<mark>[{}\[\]:])|(?P<bare>[^\s"'{}\[\]:,/]++)''', re.DOTALL)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_ESCAPED = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "\n": ""}


class NotReadable(Exception):
    """The text is no sequence of values, or it exceeds a bound of depth or length."""


class Value(NamedTuple):
    """A value at `text[start:end]`. `path`: the names of the members that contain it, the innermost MAX_PATH of them,
    as a parser without regard to case reads them; arrays have no name."""

    path: tuple[str, ...]
    start: int
    end: int
    is_string: bool = False


class _Open:
    """An object or array whose end is not read yet. `name`: of the member whose value comes next."""

    __slots__ = ("closing", "has_colon", "name", "path", "start")

    def __init__(self, path: tuple[str, ...], start: int, closing: str) -> None:
        self.path, self.start, self.closing = path, start, closing
        self.name: str | None = None
        self.has_colon = False

    @property
    def takes_value(self) -> bool:
        return self.closing == "]" or self.has_colon

    @property
    def value_path(self) -> tuple[str, ...]:
        return self.path if self.name is None else (*self.path, self.name)[-MAX_PATH:]


def values_of(text: str, path: tuple[str, ...] = ()) -> Iterator[Value]:
    """Yields each value when its end is read. `path`: of the text itself. Raises NotReadable, perhaps after values."""
    opened: list[_Open] = []
    at, pieces = 0, 0
    while True:
        gap = _GAP.match(text, at)
        at = at if gap is None else gap.end()
        if at == len(text):
            break
        piece = _PIECE.match(text, at)
        pieces += 1
        if piece is None or pieces > _MAX_PIECES or len(opened) > _MAX_DEPTH:
            raise NotReadable
        inner = opened[-1] if opened else None
        mark, end = piece["mark"], piece.end()
        if mark in ("{", "["):
            if inner is not None and not inner.takes_value:
                raise NotReadable
            opened.append(_Open(path if inner is None else inner.value_path, at, "}" if mark == "{" else "]"))
        elif mark is not None:
            if inner is None:
                raise NotReadable
            if mark == ":":
                _read_colon(inner)
            else:
                yield _close(opened, mark, end)
        elif inner is None or inner.takes_value:
            yield Value(path if inner is None else inner.value_path, at, end, piece["string"] is not None)
            _end_value(inner)
        else:
            _read_name(inner, piece)
        at = end
    if opened:
        raise NotReadable


def _read_name(inner: _Open, piece: re.Match[str]) -> None:
    if inner.name is not None:
        raise NotReadable
    name = piece["bare"] if piece["string"] is None else unescape(piece["string"][1:-1]).text
    # Parsers in C end a name at NUL; those of Go and .NET match names in any case.
    inner.name = name.partition("\0")[0].casefold()


def _read_colon(inner: _Open) -> None:
    if inner.name is None or inner.has_colon:
        raise NotReadable
    inner.has_colon = True


def _close(opened: list[_Open], mark: str, end: int) -> Value:
    done = opened.pop()
    if done.closing != mark or done.name is not None:
        raise NotReadable
    _end_value(opened[-1] if opened else None)
    return Value(done.path, done.start, end)


def _end_value(inner: _Open | None) -> None:
    if inner is not None:
        inner.name, inner.has_colon = None, False


class Unescaped(NamedTuple):
    """The text of a string. `starts` and `sources`: positions in it, and where these are in the string's own text."""

    text: str
    starts: list[int]
    sources: list[int]

    def source(self, at: int) -> int:
        """Returns the position in the string's own text of a position in `text`."""
        found = bisect_right(self.starts, at) - 1
        return self.sources[found] + at - self.starts[found]


def unescape(raw: str) -> Unescaped:
    """Returns the text of what is between a string's quotes. An escape that JSON does not have stands for its last
    character."""
    parts, starts, sources, length, at = [], [0], [0], 0, 0
    for escape in _ESCAPE.finditer(raw):
        units, letter = escape.groups()
        char = chr(int(units, 16)) if letter is None else _ESCAPED.get(letter, letter)
        parts += [raw[at:escape.start()], char]
        length += escape.start() - at + len(char)
        at = escape.end()
        starts.append(length)
        sources.append(at)
    parts.append(raw[at:])
    return Unescaped("".join(parts), starts, sources)
