"""A workspace of attn, a real Alertmanager, and the connectors between them."""

from __future__ import annotations

import uuid
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from support.connect.connector_process import ConnectorProcess
from support.connect.desk import Desk
from support.peers.alertmanager import Alertmanager
from support.processes.up import Up, wait_for

from streams.connectors.alertmanager.silences import decision_of
from streams.connectors.mappings.alertmanager import fingerprint_of

__all__ = ["CONFIG", "AlertWorld", "metric", "swept"]

# Without a webhook: items come from sweeps only.
CONFIG = """
route: {receiver: attn, group_by: [alertname], group_wait: 200ms, group_interval: 1s, repeat_interval: 1h}
receivers:
- {name: attn}
"""


@dataclass
class AlertWorld:
    """One workspace, one Alertmanager, and the connectors between them."""

    up: Up
    home: Path
    stack: ExitStack
    config: str = CONFIG
    flags: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=lambda: {
        "alertname": "HighLatency", "severity": "critical", "cluster": "eu-1", "instance": uuid.uuid4().hex[:8]})

    def __post_init__(self) -> None:
        self.desk = Desk(self.up)
        self.stack.callback(self.desk.close)
        self.key = self.desk.create_key("escalations", source="/alertmanager")
        self.alertmanager = Alertmanager(self.home / "am", self.config_text(), *self.flags)
        self.stack.callback(self.alertmanager.close)
        self.alertmanager.start()

    def config_text(self) -> str:
        """Returns the configuration with the address of attn in place of `$ATTN`. Writes the key into a file."""
        (self.home / "attn-key").write_text(self.key)
        return self.config.replace("$ATTN", self.up.url)

    @property
    def subject(self) -> str:
        return fingerprint_of(self.labels)

    def connector(self, *arguments: str, url: str = "", attn: str = "", name: str = "c1") -> ConnectorProcess:
        one = ConnectorProcess(
            self.home / name, "alertmanager", "--url", url or self.alertmanager.url, "--sweep", "0.3", "--grace", "0s",
            *arguments, attn=attn or self.up.url, key=self.key)
        self.stack.callback(one.close)
        return one

    def silences_of(self, decision: str) -> list[dict[str, Any]]:
        """Returns all silences created for a decision, expired ones included."""
        return [one for one in self.alertmanager.silences("active", "pending", "expired")
                if decision_of(one) == decision]

    def acknowledge(self, item: dict[str, Any], length: str = "2h", **more: Any) -> str:
        return self.desk.decide(item, "acknowledge", form={"length": length}, **more)


def metric(connector: ConnectorProcess, name: str) -> float:
    """Returns the value of a metric with its labels, such as `x_total{result="ok"}`; 0 without one."""
    for line in httpx.get(f"{connector.url}/metrics", trust_env=False).text.splitlines():
        if line.startswith(name):
            return float(line.rpartition(" ")[2])
    return 0.0


def swept(connector: ConnectorProcess, times: int) -> None:
    """Waits until the connector has completed more sweeps."""
    name = 'attn_connector_sweeps_total{connector="alertmanager",result="ok"}'
    until = metric(connector, name) + times
    wait_for(lambda: metric(connector, name) >= until, 60, "sweeps")
