"""A source that reads decisions from the topic `decisions`. Written from CONTRACT §7, without code of attn.

    decision_source.py KAFKA GROUP LEDGER TOPIC CLOSING_TYPE [--steps]

It applies each decision once. The file LEDGER has one line per applied decision: the line is the effect of the
decision, and the source reads it to detect repeats. With `--steps` the source prints each step and waits for a line on
stdin. A test can then kill it between any two steps.
"""

import asyncio
import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

GRACE = timedelta(seconds=1)  # `decision.taken_back` may reach the topic shortly after `undo_until`


def step(name: str, decision: str = "") -> None:
    if "--steps" in sys.argv:
        print(name, decision, flush=True)
        sys.stdin.readline()


def due(event: dict) -> bool:
    return datetime.fromisoformat(event["data"]["undo_until"]) + GRACE <= datetime.now(UTC)


async def main(kafka: str, group: str, ledger: Path, topic: str, closing: str) -> None:
    ledger.touch()
    whole = ledger.read_text().rpartition("\n")[0]  # a kill may leave half a line; its decision is not applied
    os.truncate(ledger, len(whole) + (1 if whole else 0))
    applied = {line.split()[0] for line in whole.splitlines()}
    waiting: dict[str, dict] = {}
    async with (
        AIOKafkaConsumer("decisions", bootstrap_servers=kafka, group_id=group, group_instance_id=group,
                         enable_auto_commit=False, auto_offset_reset="earliest") as consumer,
        AIOKafkaProducer(bootstrap_servers=kafka, acks="all") as producer,
    ):
        while True:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                for event in (json.loads(record.value) for record in records):
                    decision = event["data"]["decision"]
                    if event["type"] == "decision.made":
                        waiting[decision] = event
                        step("read", decision)
                    elif event["type"] == "decision.taken_back":
                        waiting.pop(decision, None)
            for decision, event in [(decision, event) for decision, event in waiting.items() if due(event)]:
                if decision not in applied:
                    with ledger.open("a") as file:
                        file.write(f"{decision} {event['data']['does']} {event['subject']}\n")
                        file.flush()
                        os.fsync(file.fileno())
                    applied.add(decision)
                    step("applied", decision)
                confirmed = {
                    "specversion": "1.0", "id": f"{decision}.done", "source": event["data"]["source"], "type": closing,
                    "subject": event["subject"], "time": datetime.now(UTC).isoformat(),
                    "workspaceid": event["workspaceid"], "data": {"by_user_id": event["data"]["actors"][-1]["user"]}}
                await producer.send_and_wait(topic, json.dumps(confirmed).encode())
                del waiting[decision]
                step("confirmed", decision)
            if not waiting:  # commits no offset beyond a decision that is not applied and confirmed
                await consumer.commit()
                step("committed")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), *sys.argv[4:6]))
