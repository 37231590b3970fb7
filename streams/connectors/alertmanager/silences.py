"""Silences that stand for decisions: one is made for a decision, and found again by the decision's id. Pure.

Alertmanager gives each silence an id of its own, and makes a second silence of the same text. So the decision's id is
part of the comment: before a silence is made for a decision, one with its id is searched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from schemas.scalars import SECOND, format_timestamp, parse_timestamp
from streams.connectors.mappings.alertmanager import SILENCE_LENGTHS, fingerprint_of
from streams.connectors.peer import Decision

__all__ = [
    "LengthRefused", "Silence", "decision_of", "end_of", "fingerprint_of_silence", "length_of", "matches",
    "new_silence", "of_decision", "start_of", "surplus",
]

Silence = Mapping[str, Any]  # as `GET /api/v2/silences` has it

_DECISION = re.compile(r"\(attn decision (dec_[0-9a-f]{32})\)$")
_MAX_COMMENT, _MAX_NAME = 1000, 200  # characters
_IN_FORCE = ("active", "pending")


class LengthRefused(Exception):
    """The length of a silence is missing, unknown, or longer than the connector allows. The message says which."""


def length_of(decision: Decision, longest: int | None = None) -> int:
    """Returns how long the decider wants the alert silenced, in seconds, by the form of `acknowledge_ask`.

    Raises LengthRefused. `longest`: the limit of the connector in seconds.
    """
    value = (decision.get("form") or {}).get("length")
    if not isinstance(value, str) or value not in SILENCE_LENGTHS:
        raise LengthRefused(f"the answer has no length of the silence: one of {', '.join(SILENCE_LENGTHS)}")
    seconds = SILENCE_LENGTHS[value]
    if longest is not None and seconds > longest:
        raise LengthRefused(f"a silence of {value} is longer than the {longest / 3600:g} h that are allowed here")
    return seconds


def new_silence(decision: Decision, labels: Mapping[str, str], now: int, seconds: int) -> dict[str, Any]:
    """Returns the silence of a decision, for `POST /api/v2/silences`: it names each label of the alert.

    It also matches alerts that have these labels and others; Alertmanager has no exact match. `now`: microseconds by
    Alertmanager's clock.
    """
    names = [str(actor.get("name") or actor["user"]) for actor in decision.get("actors", [])]
    said = " ".join(str(decision.get("comment") or "Acknowledged in attn").split())[:_MAX_COMMENT]
    return {
        "matchers": [{"name": name, "value": labels[name], "isRegex": False, "isEqual": True}
                     for name in sorted(labels)],
        "startsAt": format_timestamp(now), "endsAt": format_timestamp(now + seconds * SECOND),
        "createdBy": ", ".join(names)[:_MAX_NAME] or "attn", "comment": f"{said} (attn decision {decision['id']})",
    }


def decision_of(silence: Silence) -> str | None:
    """Returns the id of the decision that a silence was made for; None if attn did not make it."""
    found = _DECISION.search(str(silence.get("comment", "")).rstrip())
    return found[1] if found is not None else None


def of_decision(silences: Iterable[Silence], decision: str) -> list[Silence]:
    """Returns the silences of a decision: those in force first, then the earliest, then by id."""
    found = [silence for silence in silences if decision_of(silence) == decision]
    return sorted(found, key=lambda one: (state_of(one) not in _IN_FORCE, start_of(one), str(one["id"])))


def surplus(silences: Iterable[Silence]) -> list[Silence]:
    """Returns the silences in force of which another one, that is earlier, was made for the same decision.

    Two connectors, or one that was killed, may have made them. Each reader of the same list returns the same ones.
    """
    by_decision: dict[str, list[Silence]] = {}
    for silence in silences:
        decision = decision_of(silence)
        if decision is not None and state_of(silence) in _IN_FORCE:
            by_decision.setdefault(decision, []).append(silence)
    return [each for decision, found in by_decision.items() for each in of_decision(found, decision)[1:]]


def fingerprint_of_silence(silence: Silence) -> str | None:
    """Returns the fingerprint of the alert that a silence of attn was made for; None if it was changed since."""
    matchers = silence.get("matchers", [])
    if any(matcher.get("isRegex") or not matcher.get("isEqual", True) for matcher in matchers):
        return None
    return fingerprint_of({str(matcher["name"]): str(matcher["value"]) for matcher in matchers})


def matches(silence: Silence, labels: Mapping[str, str]) -> bool:
    """Returns whether a silence may match an alert. A regular expression counts as a match: it is not evaluated."""
    return all(matcher.get("isRegex") or
               (labels.get(matcher["name"], "") == matcher["value"]) == matcher.get("isEqual", True)
               for matcher in silence.get("matchers", []))


def state_of(silence: Silence) -> str:
    return str(silence.get("status", {}).get("state"))


def start_of(silence: Silence) -> int:
    """Returns when a silence began, in microseconds."""
    return parse_timestamp(str(silence["startsAt"]))


def end_of(silences: Sequence[Silence], now: int) -> int | None:
    """Returns when the last one of expired silences ended, in microseconds, at most `now`; None without one."""
    ends = [parse_timestamp(str(one["endsAt"])) for one in silences if state_of(one) == "expired"]
    return min(max(ends), now) if ends else None
