"""Modules that a start does not import, and models that it does not build (decision 0080)."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock, Mock

import pytest
from support.edge.edges import settings

from api.edge import follower
from api.edge.follower import TopicFollower
from api.edge.services import Edge
from ops.cli.imports import LONG_RUNNING
from ops.cli.main import COMMANDS
from schemas.sources import MODELS

_HEAVY = "('rich', 'aiohttp', 'clickhouse_connect', 'faust', 'aiokafka')"


def output(code: str) -> str:
    """Returns what a new process prints: this one has imported most modules."""
    command = [sys.executable, "-P", "-c", f"import sys\nfrom ops.cli.imports import import_module\n{code}"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout.strip()


@pytest.mark.parametrize(("module", "loaded"), [
    ("api.main", "['aiokafka']"), ("streams.worker.main", "['aiohttp', 'faust', 'aiokafka']")])
def test_a_role_starts_without_modules_that_it_may_never_need(module: str, loaded: str) -> None:
    assert output(
        f"import_module('ops.cli.commands.roles')\nimport_module('{module}')\n"
        f"print([name for name in {_HEAVY} if name in sys.modules])") == loaded


def test_rich_can_be_imported_after_structlog_was_imported_without_it() -> None:
    assert output(
        "import_module('ops.cli.commands.roles')\nimport structlog, rich.console\n"
        "print(structlog.dev.rich, rich.console.Console.__name__)") == "None Console"


def test_modules_of_long_running_commands_exist() -> None:
    assert {module.partition(":")[0] for module in COMMANDS.values()} >= LONG_RUNNING


def test_garbage_collection_is_on_after_an_import_and_after_one_that_fails() -> None:
    code = ("import gc\nimport_module('ops.errors')\nprint(gc.isenabled())\n"
            "try:\n    import_module('ops.missing')\nexcept ModuleNotFoundError:\n    print(gc.isenabled())")
    assert output(code) == "True\nTrue"


def test_an_edge_with_an_issuer_imports_aiohttp_at_its_start() -> None:
    code = ("from schemas.settings import Settings\nfrom api.http.auth.tokens import Authenticator\n"
            "before = 'aiohttp' in sys.modules\nAuthenticator(Settings({}))\nprint(before, 'aiohttp' in sys.modules)")
    assert output(code.format("jwks_url='https://id.test/keys'")) == "False True"
    assert output(code.format("jwt_secret='s' * 32")) == "False False"


async def test_an_edge_whose_clickhouse_client_cannot_be_imported_fails_before_it_is_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Follower(TopicFollower):
        async def _start_consumer(self, name: str) -> Any:
            return cast("Any", SimpleNamespace(stop=AsyncMock(), assign=Mock()))

        async def _watch(self, *_: Any) -> None:
            await asyncio.Event().wait()

    bootstrap = SimpleNamespace(
        load_views=AsyncMock(), facts_range=AsyncMock(return_value=({}, {})), begin_loading_facts=Mock())
    monkeypatch.setattr(follower, "Bootstrap", lambda *_: bootstrap)
    monkeypatch.setitem(sys.modules, "clickhouse_connect.driver.asyncclient", None)
    given = settings(clickhouse_read_url="http://127.0.0.1:1/attn")
    edge = Edge(given)
    with pytest.raises(ImportError, match="clickhouse_connect"):
        await asyncio.wait_for(Follower(edge, cast("Any", given)).run(), 60)
    assert not edge.ready


def test_models_of_events_are_built_at_the_first_event_of_their_type() -> None:
    event = {"specversion": "1.0", "id": "e", "source": "/s", "type": "waitpoint.approved", "subject": "w",
             "time": "2026-12-01T00:00:00Z", "workspaceid": "a"}
    code = ("from schemas.sources import MODELS\nfrom schemas.asking.ask import Ask\n"
            "print([name for name in MODELS if MODELS[name].__pydantic_complete__], Ask.__pydantic_complete__)\n"
            "model = MODELS['waitpoint.approved']\n"
            f"event = model.model_validate_json({json.dumps(event)!r})\n"
            "print(model.__pydantic_complete__, event.subject, event.data.title)")
    assert output(code) == "[] False\nTrue w None"


@pytest.mark.parametrize("event_type", sorted(
    name for name, model in MODELS.items() if not model.model_fields["data"].is_required()))
def test_the_documented_default_of_data_is_that_of_the_model(event_type: str) -> None:
    data = MODELS[event_type].model_fields["data"]
    documented = MODELS[event_type].model_json_schema()["properties"]["data"]["default"]
    assert data.get_default(call_default_factory=True).model_dump() == documented
