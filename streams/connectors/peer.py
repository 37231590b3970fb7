"""What a connector has to do for its system: the protocol `Peer`, and the outcomes of one decision.

The frame (`streams.connectors.connector`) calls a peer; the peer knows its system and no process, timer or metric.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp

__all__ = [
    "TRANSIENT", "Applied", "Decision", "Event", "NotYet", "Outcome", "Peer", "PeerUnavailable", "Refused", "text_of",
]

Event = dict[str, Any]  # a CloudEvent, as `POST /events` accepts it
Decision = Mapping[str, Any]  # an entry of `GET /org/me/decisions` (api.contract.responses.decisions.DecisionEntry)


class PeerUnavailable(Exception):
    """The system does not answer, or answers with an error that may pass. The frame tries again after a backoff."""


# Errors of a system after which the same request may succeed. TimeoutError is an OSError.
TRANSIENT = (PeerUnavailable, aiohttp.ClientError, OSError)


@dataclass(frozen=True, slots=True)
class Applied:
    """The decision took effect: the peer has read it back. `events` are sent before the report.

    `reported`: False if `events` close the item, so that no `decision.applied` is needed.
    """

    events: Sequence[Event] = ()
    reported: bool = True


@dataclass(frozen=True, slots=True)
class Refused:
    """The system refuses the decision, and a repeat would not help. The item returns to its people with `reason`.

    `events` are sent after the report: those that close the item must not confirm its decision.
    """

    reason: str
    events: Sequence[Event] = ()


@dataclass(frozen=True, slots=True)
class NotYet:
    """The effect is not visible yet, or the decision cannot be applied now. The frame calls `apply` again.

    `after`: seconds until then; default: a backoff from 0.5 s to 60 s. A wake-up ends the wait.
    """

    reason: str
    after: float | None = None


Outcome = Applied | Refused | NotYet


class Peer(Protocol):
    """One system. Both methods are idempotent: after a crash the frame calls them again for the same things.

    Both raise PeerUnavailable, aiohttp.ClientError, OSError or TimeoutError if the system does not answer.
    """

    @property
    def name(self) -> str:
        """Name of the connector in metrics and logs, such as `alertmanager`."""

    @property
    def source(self) -> str | None:
        """CloudEvents source of the peer's events. The frame applies decisions of this source and of those below it;
        None: of each source that the key covers."""

    @property
    def topic(self) -> str:
        """Topic of the reports `decision.applied` and `decision.refused`."""

    async def sweep(self) -> Sequence[Event]:
        """Reads the whole truth from the system. Returns the events that attn may lack. Their ids follow from what
        happened in the system, so that a repeat changes nothing."""

    async def apply(self, decision: Decision) -> Outcome:
        """Brings a decision to the system: first reads whether an earlier attempt took effect, then acts, then reads
        the effect back. The frame calls it for one decision of a lane at a time."""

    def lane(self, decision: Decision) -> str:
        """Returns what a decision must not be applied beside: decisions of one lane are applied one after another,
        oldest first. Mostly its `source_id`."""


def text_of(error: BaseException) -> str:
    """Returns the error's text, else its type: some errors of sockets have no text."""
    return str(error) or type(error).__name__
