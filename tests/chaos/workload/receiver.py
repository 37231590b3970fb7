"""A source as a process that is killed: `receiver.py KAFKA GROUP LEDGER`. It imports no module of attn.

It applies each decision of its questions once (the ledger is the effect and its record), then closes the item, or sends
`decision.applied` or `decision.refused`. It commits the offset after the acknowledgement of the confirmation.
"""

import asyncio
import contextlib
import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError

GRACE = timedelta(seconds=3)  # `decision.taken_back` may reach the topic after `undo_until`, more so under faults
TOPICS = {"waitpoint": "waitpoints", "escalation": "escalations", "pending_action": "actions",
          "failed_run": "run-failures"}
CLOSING = {("waitpoint", True): "waitpoint.approved", ("waitpoint", False): "waitpoint.rejected",
           ("pending_action", True): "action.confirmed", ("pending_action", False): "action.declined",
           ("failed_run", True): "run.retried", ("failed_run", False): "run.cancelled"}


def refuses(decision: str) -> bool:
    return int(decision[-4:], 16) % 6 == 0


def answer(event: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Returns the topic and the event with which the source reports the result."""
    data = event["data"]
    decision, kind = data["decision"], data["kind"]
    result: dict[str, Any] = {
        "specversion": "1.0", "id": f"{decision}.done", "source": data["source"], "subject": event["subject"],
        "time": datetime.now(UTC).isoformat(), "workspaceid": event["workspaceid"]}
    if refuses(decision):
        more: dict[str, Any] = {"type": "decision.refused", "data": {"decision": decision, "reason": "freeze"}}
    elif kind == "escalation":
        more = {"type": "decision.applied", "data": {"decision": decision}}
    else:
        more = {"type": CLOSING[kind, data.get("does") not in ("reject", "ignore")], "data": {}}
    return TOPICS[kind], result | more


async def serve(kafka: str, group: str, ledger: Path) -> None:
    ledger.touch()
    whole = ledger.read_text().rpartition("\n")[0]
    os.truncate(ledger, len(whole) + (1 if whole else 0))
    applied = {line.split()[0] for line in whole.splitlines()}
    waiting: dict[str, dict[str, Any]] = {}
    read: dict[str, int] = {}  # workspace -> offset after its last record that was read
    async with (
        AIOKafkaConsumer(
            "decisions", bootstrap_servers=kafka, group_id=group, group_instance_id=group, enable_auto_commit=False,
            auto_offset_reset="earliest", session_timeout_ms=6000, heartbeat_interval_ms=1000) as consumer,
        AIOKafkaProducer(
            bootstrap_servers=kafka, acks="all", enable_idempotence=True, request_timeout_ms=10_000) as producer,
    ):
        while True:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    event = json.loads(record.value)
                    decision, read[event["workspaceid"]] = event["data"]["decision"], record.offset + 1
                    if event["workspaceid"].startswith("council") and not (event["data"].get("reply") or {}).get("to"):
                        if event["type"] == "decision.made":
                            waiting[decision] = event
                        elif event["type"] == "decision.taken_back":
                            waiting.pop(decision, None)
            now = datetime.now(UTC)
            for decision, event in list(waiting.items()):
                if datetime.fromisoformat(event["data"]["undo_until"]) + GRACE > now:
                    continue
                if decision not in applied:
                    with ledger.open("a") as file:
                        result = "refused" if refuses(decision) else "applied"
                        file.write(f"{decision} {result} {read[event['workspaceid']]}\n")
                        file.flush()
                        os.fsync(file.fileno())
                    applied.add(decision)
                topic, confirmation = answer(event)
                await producer.send_and_wait(topic, json.dumps(confirmation).encode(), key=event["subject"].encode())
                del waiting[decision]
            if not waiting:
                with contextlib.suppress(KafkaError):  # a rebalance: the same records are read again
                    await consumer.commit()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
