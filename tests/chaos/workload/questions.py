"""Questions of sources during the run: all kinds, changed, withdrawn and asked again. Derived from the seed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from dataclasses import dataclass, field
from typing import Any

from chaos.workload.load import Send
from chaos.workload.producers import Producer
from chaos.workload.receiver import TOPICS
from schemas.scalars import format_timestamp
from schemas.settings import Settings

__all__ = ["ENDPOINT", "PEOPLE", "Questions"]

ENDPOINT = "hook"  # endpoint of the harness, for asks that name one
PEOPLE = (("ada", "OWNER"), ("ben", "ADMIN"), ("cleo", "MANAGER"), ("dan", "MEMBER"), ("eve", "MEMBER"))
_OPENING = {"waitpoint": "waitpoint.created", "escalation": "escalation.opened", "pending_action": "action.requested",
            "failed_run": "run.failed"}
_WITHDRAWAL = {"waitpoint": "waitpoint.cancelled", "escalation": "escalation.resolved",
               "pending_action": "action.expired", "failed_run": "run.recovered"}
_OPTIONS = [{"id": "yes", "does": "approve"}, {"id": "no", "does": "reject"},
            {"id": "wait", "does": "ignore", "safe": True}]
_OPEN = 14  # open questions of a workspace
_PAUSE = 0.5  # mean seconds between two events of a workspace


def ask(rng: random.Random, now: int) -> dict[str, Any]:
    """Returns an ask of a random kind."""
    sort = rng.choice(("plain", "plain", "quorum", "quorum", "four eyes", "expires", "safe", "http", "topic only"))
    found: dict[str, Any] = {"options": _OPTIONS}
    if sort == "quorum":
        found["quorum"] = {"approve": rng.choice((2, 2, 3))}
    elif sort == "four eyes":
        found["deciders"] = {"not": ["requester"], "requester": rng.choice(PEOPLE)[0]}
    elif sort in ("expires", "safe"):
        found["expires_at"] = format_timestamp(now + rng.randint(3, 20) * 1_000_000)
        found |= {"on_expiry": "wait"} if sort == "safe" else {}
    elif sort == "http":
        found["reply"] = {"to": ENDPOINT}
    elif sort == "topic only":
        found["reply"] = {"confirm": False}
    return found


@dataclass
class Questions:
    """The sources of one workspace. `lines`: their events as the model reads them."""

    ws: str
    seed: int
    settings: Settings
    http: bool  # whether `attn deliver` runs; otherwise no ask names an endpoint
    lines: list[dict[str, Any]] = field(default_factory=list)
    changed: int = 0
    withdrawn: int = 0
    _open: dict[str, str] = field(default_factory=dict)  # subject -> kind
    _number: int = 0
    _last: int = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Sends one event after the other until `stop`; each is acknowledged before the next."""
        rng, out = random.Random(self.seed), Producer(self.settings, self.ws)
        try:
            while not stop.is_set():
                await out.send([_send(line) for line in self._next(rng)])
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(rng.expovariate(1 / _PAUSE)):
                        await stop.wait()
        finally:
            await out.close()

    def _next(self, rng: random.Random) -> list[dict[str, Any]]:
        """Returns the next events: usually one, or two that ask as a batch."""
        if len(self._open) >= _OPEN or (self._open and rng.random() < 0.3):
            subject = rng.choice(sorted(self._open))
            kind = self._open[subject]
            if kind == "escalation" and rng.random() < 0.6:
                self.changed += 1
                return [self._line("escalation.updated", kind, subject, {"ask": self._ask(rng)})]
            if rng.random() < 0.2:  # asked again, with the same or another question
                return [self._line(_OPENING[kind], kind, subject, {"title": "Asked again", "ask": self._ask(rng)})]
            del self._open[subject]
            self.withdrawn += 1
            return [self._line(_WITHDRAWAL[kind], kind, subject, {})]
        kind = rng.choice(sorted(_OPENING))
        asked = [self._ask(rng)]
        if kind == "pending_action" and rng.random() < 0.5:
            self._number += 1
            asked = [{"options": _OPTIONS, "batch": {"key": f"batch-{self._number}"}}] * 2
        return [self._opening(kind, rng, one) for one in asked]

    def _opening(self, kind: str, rng: random.Random, asked: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        subject = f"{kind}_{self._number}"
        self._open[subject] = kind
        target = rng.choice(({}, {}, {}, {"target_role": "OWNER"}, {"target_user_id": "dan"}))
        return self._line(_OPENING[kind], kind, subject, {
            "title": f"Question {self._number}", "priority": rng.choice(("normal", "high")), "ask": asked, **target})

    def _ask(self, rng: random.Random) -> dict[str, Any]:
        found = ask(rng, time.time_ns() // 1000)
        return found if self.http or "to" not in found.get("reply", {}) else {"options": _OPTIONS}

    def _line(self, event: str, kind: str, subject: str, data: dict[str, Any]) -> dict[str, Any]:
        self._last = max(self._last + 1, time.time_ns() // 1000)  # times are unique
        value = {
            "specversion": "1.0", "id": f"{self.ws}-{len(self.lines)}", "source": f"/council/{kind}", "type": event,
            "subject": subject, "time": format_timestamp(self._last), "workspaceid": self.ws, "data": data}
        line = {"topic": TOPICS[kind], "key": subject, "value": value}
        self.lines.append(line)
        return line


def _send(line: dict[str, Any]) -> Send:
    return Send(line["topic"], line["key"].encode(), json.dumps(line["value"]).encode())
