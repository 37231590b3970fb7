"""Shared fixtures. Tests in tests/unit may not touch the network.

A broker: `stack` (settings for attn, on the embedded broker and on Apache Kafka in turn), `own_broker` (one that the
test may stop and kill, of both kinds too), `real_kafka` (Apache Kafka), `broker` (an embedded one that all share).
Three Kafka brokers: `support.kafka.brokers.cluster`.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Generator
from functools import cache, partial
from pathlib import Path
from unittest.mock import patch

import pytest
import pytest_asyncio
from httpx._transports import default as _default
from hypothesis import settings

TESTS = Path(__file__).parent
sys.path.insert(0, str(TESTS))  # from support.x import y
sys.path.insert(1, str(TESTS.parent / "clients" / "python" / "src"))  # attn_client is a distribution of its own

from support.kafka import brokers, pipeline  # noqa: E402

from ops.embedded.broker import EmbeddedBroker, binary  # noqa: E402
from ops.kafka import Cluster  # noqa: E402

# Python compiles a module once, not in each process. Compiling the libraries of attn takes 2 s of CPU.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A client loads the CA certificates, which costs 26 ms of CPU. One context does for all clients of the tests.
_default.create_ssl_context = cache(_default.create_ssl_context)  # type: ignore[attr-defined]

# Without a deadline: on a busy machine an example may take longer than the 200 ms that hypothesis allows.
settings.register_profile("random", deadline=None)
settings.register_profile("fixed", derandomize=True, deadline=None)  # see support.examples
settings.load_profile("random")  # unless pytest gets --hypothesis-profile

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell without job control starts background jobs with SIGINT ignored, and children inherit that; a signal with
    # a handler is back at its default in a child.
    signal.signal(signal.SIGINT, signal.default_int_handler)

NEED_BROKER = {"broker", "stack", "own_broker", "real_kafka"}


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """A long value does not become part of a test's name; pytest numbers such cases."""
    if isinstance(val, str | bytes):
        return argname if len(val) > 80 else None
    return argname if isinstance(val, int) and val.bit_length() > 250 else None


# Files that take longest, the longest first. xdist gives a file to one process: a long file that starts last leaves the
# other processes idle. Measured by a junit report of the whole suite with four processes on two cores. The first file
# builds Alertmanager: another file that needs it would wait for the build, and kills of brokers take longer beside it.
LONGEST = (
    "test_alertmanager", "test_langgraph", "test_openapi", "test_history_faults", "test_broker_faults",
    "test_worker_kills", "test_up", "test_replay", "test_chaos", "test_history_crashes", "test_worker",
    "test_history_group_lock", "test_ecosystem", "test_project_checks", "test_ingest", "test_kafka", "test_groups",
    "test_answers", "test_outage_tools", "test_mcp_asking", "test_laws", "test_unresponsive",
    "test_dashboard_accessibility", "test_dead_letters", "test_dashboard", "test_alertmanager_faults", "test_mcp_http",
    "test_audit_export", "test_answers_of_many", "test_deliver", "test_cli_kafka", "test_edge_laws", "test_mcp_stdio",
    "test_package", "test_image", "test_events_by_curl", "test_demo", "test_delivery_kills", "test_framework_adapters",
    "test_login_command", "test_dashboard_keys", "test_history_store", "test_kafka_security", "test_query_guard",
    "test_github_process", "test_rebuild", "test_browser", "test_mcp_typescript", "test_dashboard_input",
    "test_history_http", "test_mapping_laws", "test_langgraph_newcomer", "test_analytics", "test_history_rebuild",
    "test_decision_race_on_broker", "test_one_trace", "test_key_command", "test_mcp_conformance",
    "test_dashboard_address", "test_dashboard_insights", "test_cli_config", "test_claude_adapter",
    "test_sign_in_at_provider", "test_decide_to_receiver", "test_python_client", "test_mcp_langchain",
    "test_acceptance_laws", "test_write_laws", "test_compaction", "test_dashboard_background_changes", "test_readiness",
    "test_role_start", "test_published_clients", "test_reject_circuit", "test_sign_in_page", "test_edge_storm",
    "test_clients_on_up", "test_two_edges", "test_docs", "test_github_answers",
)
ORDER = {name: number for number, name in enumerate(LONGEST)}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: ORDER.get(item.path.stem, len(ORDER)))  # stable: the rest keeps its order
    for item in items:
        if NEED_BROKER & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.broker)
    shared = [name for name, count in Counter(item.nodeid for item in items).items() if count > 1]
    assert not shared, f"of tests that share an id only one would run: {shared}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Fails a unit test that connects to an address or binds a port."""
    if TESTS / "unit" not in item.path.parents:
        return (yield)

    def refuse(self: socket.socket, *args: object, **kwargs: object) -> None:
        raise RuntimeError(f"a test in tests/unit used the network: {args[:1]}")

    with patch.multiple(socket.socket, connect=refuse, connect_ex=refuse, bind=refuse, sendto=refuse):
        return (yield)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """Bootstrap address of an embedded broker that the whole session shares: use topic names of your own."""
    if binary() is None:
        pytest.skip("noida-db is not installed (pip install 'attn[embedded]')")
    embedded = EmbeddedBroker(tmp_path_factory.mktemp("broker"))
    await embedded.start()
    yield embedded.bootstrap
    await embedded.stop()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def kafka_of_session(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """Address of an Apache Kafka; what the last test left is still on it."""
    async with brokers.shared(tmp_path_factory.mktemp("kafka")) as address:
        yield address


@pytest_asyncio.fixture
async def real_kafka(kafka_of_session: str) -> str:
    """Address of an Apache Kafka without any topic or group of attn."""
    await brokers.wipe(kafka_of_session)
    return kafka_of_session


@pytest.fixture(params=brokers.BOTH)
def stack(request: pytest.FixtureRequest, tmp_path: Path) -> pipeline.Stack:
    """`async with stack(log_partitions=4) as settings`: settings of a broker with nothing of ours on it."""
    kafka = request.getfixturevalue("kafka_of_session") if request.param == "kafka" else None
    return partial(pipeline.stack, tmp_path, kafka)


@pytest_asyncio.fixture(params=brokers.BOTH)
async def own_broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EmbeddedBroker | Cluster]:
    """A broker that the test may `stop`, `kill` and `start`."""
    async with brokers.own(request.param, tmp_path) as one:
        yield one
