"""Requests of terminals that want to sign in (CONTRACT §9, RFC 8628, ops/decisions/0069).

An edge stores nothing about a request that nobody has answered: the terminal and the person's browser carry the request
in a text that edges seal. The answer is a row of the view, so any edge can take it, and each edge knows it.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections import OrderedDict
from typing import NamedTuple

import msgspec

from api.edge.services import Edge
from streams.core.sealing import SealError
from streams.runtime.secret_texts import ENTROPY_BYTES, TERMINALS, secret_digest

__all__ = ["INTERVAL", "SECONDS", "StartedRequest", "TerminalRequest", "Terminals"]

SECONDS = 600  # for which a request can be answered
INTERVAL = 5  # seconds between two polls of a terminal
_WRONG_CODES = 5  # of one request on one edge; then the edge refuses every code
_REMEMBERED = 10_000  # requests with a poll or a wrong code
_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"  # RFC 8628 section 6.1: no vowels, hence no words; 20**8 codes
_BOUND = ("terminal",)


class TerminalRequest(msgspec.Struct, frozen=True, array_like=True):
    """A request. `digest`: SHA-256 of the terminal's secret. `code`: what the person types. `expires`: seconds since
    the epoch. `device`: what the terminal says of itself. `address`: of its connection."""

    id: str
    digest: str
    code: str
    expires: int
    device: str
    address: str


class StartedRequest(NamedTuple):
    """A request that was just made. `device_code`: for the terminal only. `sealed`: for the browser."""

    device_code: str
    user_code: str
    sealed: str


class Terminals:
    """Makes and opens requests on one edge, and limits polls and wrong codes of each."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._polls: OrderedDict[str, float] = OrderedDict()
        self._wrong: OrderedDict[str, int] = OrderedDict()

    @property
    def available(self) -> bool:
        """Whether the settings have a key that every edge knows."""
        return self._edge.session_sealer is not None

    def start(self, device: str, address: str) -> StartedRequest:
        """Returns a new request. Needs `available`."""
        sealer = self._edge.session_sealer
        assert sealer is not None
        made, code = TERMINALS.new(secrets.token_bytes(ENTROPY_BYTES)), "".join(
            secrets.choice(_LETTERS) for _ in range(8))
        request = TerminalRequest(
            made.id, made.digest, code, int(self._edge.clock()) + SECONDS, device, address)
        sealed = sealer.seal(msgspec.json.encode(request).decode(), _BOUND)
        return StartedRequest(f"{made.text}.{sealed}", f"{code[:4]}-{code[4:]}", sealed)

    def open(self, sealed: str) -> TerminalRequest | None:
        """Returns the request of a sealed text, expired or not; None if no edge has sealed the text."""
        if self._edge.session_sealer is None:
            return None
        try:
            return msgspec.json.decode(self._edge.session_sealer.open(sealed, _BOUND), type=TerminalRequest)
        except (SealError, msgspec.MsgspecError, UnicodeEncodeError):
            return None

    def open_device_code(self, device_code: str) -> TerminalRequest | None:
        """Returns the request of a terminal; None if the text is no code of a terminal."""
        text, _, sealed = device_code.partition(".")
        request = self.open(sealed)
        if request is None or TERMINALS.id_of(text) != request.id:
            return None
        return request if hmac.compare_digest(request.digest, secret_digest(text)) else None

    def is_too_early(self, request: TerminalRequest) -> bool:
        """Notes a poll. Returns whether it comes sooner than the interval after the last one, with a second of
        tolerance."""
        now = self._edge.clock()
        last = self._polls.pop(request.id, float("-inf"))
        self._polls[request.id] = now
        _shorten(self._polls)
        return 0 <= now - last < INTERVAL - 1

    def check_code(self, request: TerminalRequest, typed: str) -> bool | None:
        """Returns whether this is the code of the request, in any case and with or without the dash; None after too
        many wrong ones."""
        wrong = self._wrong.get(request.id, 0)
        if wrong >= _WRONG_CODES:
            return None
        if hmac.compare_digest(re.sub(r"[^A-Z]", "", typed.upper()), request.code):
            return True
        self._wrong[request.id] = wrong + 1
        _shorten(self._wrong)
        return False


def _shorten(known: OrderedDict[str, float] | OrderedDict[str, int]) -> None:
    if len(known) > _REMEMBERED:
        known.popitem(last=False)
