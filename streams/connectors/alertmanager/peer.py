"""Peer of the connector to Alertmanager: an acknowledgement in attn is a silence of the alert, made once."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any, Protocol

from streams.connectors.alertmanager.client import AlertmanagerClient, SilenceRejected, Truth
from streams.connectors.alertmanager.silences import LengthRefused, length_of, new_silence, of_decision, surplus
from streams.connectors.alertmanager.sweep import Item, Planner, is_muted, is_trusted, occurrence_start
from streams.connectors.mappings.alertmanager import AlertOptions, close_of, subject_of
from streams.connectors.peer import Applied, Decision, Event, NotYet, Outcome, PeerUnavailable, Refused

__all__ = ["AlertmanagerPeer", "ItemReader"]

_MAX_LOOKUPS = 100  # items that one sweep asks attn for one by one
_READ_BACK = 0.5  # seconds until a silence that is not in force yet is read again


class ItemReader(Protocol):
    """The part of AttnClient that the peer needs."""

    async def items(
        self, *, state: str = "all", source: str | None = None, source_id: str | None = None
    ) -> Sequence[Item]: ...

    async def item(self, item: str) -> Item | None: ...


class AlertmanagerPeer:
    """See `streams.connectors.peer.Peer`.

    `grace`: seconds after a start of Alertmanager in which no missing alert counts as ended. `longest`: limit of a
    silence in seconds, or None. `receivers`: names of receivers whose alerts open items; None: all.
    """

    name = "alertmanager"

    def __init__(
        self, client: AlertmanagerClient, attn: ItemReader, options: AlertOptions, *, grace: float = 300.0,
        longest: int | None = None, receivers: frozenset[str] | None = None,
    ) -> None:
        self._client, self._attn, self._options = client, attn, options
        self._grace, self._longest = grace, longest
        self._planner = Planner(options, grace, receivers)
        self._missing: set[str] = set()  # decisions whose alert was missing when it was last read
        self._looked_up: dict[str, float] = {}  # subject -> when attn was last asked for its item

    @property
    def source(self) -> str:
        return self._options.source

    @property
    def topic(self) -> str:
        return "escalations" if self._options.kind == "escalation" else "run-failures"

    def lane(self, decision: Decision) -> str:
        return str(decision["source_id"])

    async def sweep(self) -> Sequence[Event]:
        """Reads attn before Alertmanager: an item that attn lists has been an alert before Alertmanager is read."""
        active = await self._attn.items(state="active", source=self.source)
        decided = await self._attn.items(state="decided", source=self.source)
        truth = await self._client.truth()
        silences = await self._client.silences()
        for silence in surplus(silences):
            await self._client.expire_silence(str(silence["id"]))
        plan = self._planner.plan(truth, silences, active, decided)
        return [*plan.events, *await self._reopen(plan.unknown)]

    async def _reopen(self, unknown: dict[str, Any]) -> list[Event]:
        """Returns events that open resolved items again whose alerts fire. Alertmanager is read once more after attn: a
        silence that was reported in the meantime was made before."""
        chosen = sorted(unknown, key=lambda subject: self._looked_up.get(subject, 0.0))[:_MAX_LOOKUPS]
        self._looked_up = {subject: self._looked_up[subject] for subject in unknown if subject in self._looked_up}
        resolved: dict[str, Item] = {}
        for subject in chosen:
            self._looked_up[subject] = time.monotonic()
            for item in await self._attn.items(source=self.source, source_id=subject):
                if item["state"] == "resolved":
                    resolved[subject] = item
        if not resolved:
            return []
        truth, silences = await self._client.truth(), await self._client.silences()
        firing = {subject_of(str(alert["fingerprint"]), self._options): alert for alert in truth.alerts
                  if not is_muted(alert)}
        return [event for subject, item in resolved.items() if subject in firing
                for event in self._planner.reopened(firing[subject], item, silences, truth.at)]

    async def apply(self, decision: Decision) -> Outcome:
        """Makes the silence of an acknowledgement, unless an earlier attempt has made it, and reads it back."""
        if decision.get("does") != "acknowledge":
            return Refused(f"Alertmanager knows no answer of this kind: {decision.get('does')}")
        made = of_decision(await self._client.silences_everywhere(), str(decision["id"]))
        if made:
            return await self._read_back(decision)
        truth = await self._client.truth()
        subject = str(decision["source_id"])
        alert = next((one for one in truth.alerts
                      if subject_of(str(one["fingerprint"]), self._options) == subject), None)
        if alert is None:
            return await self._refuse_ended(decision, truth)
        self._missing.discard(str(decision["id"]))
        started, asked = occurrence_start(f"@{alert['startsAt']}"), occurrence_start(str(decision["question"]["id"]))
        if started is not None and asked is not None and started > asked:
            return Refused("the alert had ended before it could be silenced; it fires again and asks anew")
        try:
            seconds = length_of(decision, self._longest)
            await self._client.create_silence(new_silence(decision, alert["labels"], truth.at, seconds))
        except LengthRefused as refusal:
            return Refused(str(refusal))
        except SilenceRejected as refusal:
            return Refused(f"Alertmanager rejects the silence: {refusal}")
        return await self._read_back(decision)

    async def _read_back(self, decision: Decision) -> Outcome:
        """Returns Applied once the silence is in force. One that is over was in force; only the earliest one stays."""
        silences = await self._client.silences_everywhere()
        made = of_decision(silences, str(decision["id"]))
        for silence in surplus(made):
            with contextlib.suppress(PeerUnavailable):  # the next sweep ends it
                await self._client.expire_silence(str(silence["id"]))
        if made and made[0]["status"]["state"] in ("active", "expired"):
            return Applied()
        return NotYet("the silence is not in force yet", _READ_BACK)

    async def _refuse_ended(self, decision: Decision, truth: Truth) -> Outcome:
        """Returns why an alert cannot be silenced that is missing for the second time: members of a cluster get alerts
        one after another. The event that closes its item follows the report."""
        item = await self._attn.item(str(decision["item"]))
        fingerprint = ((item or {}).get("payload") or {}).get("fingerprint")
        if item is not None and fingerprint is None:
            return Refused("the item stands for a group of alerts; only single alerts can be silenced from attn")
        if not is_trusted(truth, self._grace):
            return NotYet(f"Alertmanager was restarted {(truth.at - truth.up_since) / 1e6:.0f} s ago and does not list "
                          "the alert; its sender may send it again", 5.0)
        if str(decision["id"]) not in self._missing:
            self._missing.add(str(decision["id"]))
            return NotYet("Alertmanager does not list the alert", 1.0)
        self._missing.discard(str(decision["id"]))
        started = occurrence_start(str(decision["question"]["id"]))
        closing = [close_of(str(fingerprint), started, truth.at, self._options)] if fingerprint is not None else []
        return Refused("the alert had ended before it could be silenced", closing)
