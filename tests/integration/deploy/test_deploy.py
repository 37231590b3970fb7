"""Checks the Compose file, the Dockerfile and the nginx configuration without a Docker engine.

The schema of Compose files is that of compose-spec (Apache-2.0), a copy of which is in tests/data.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import yaml
from support.edge.edges_nginx import JS_MODULE, NGINX, nginx_conf, running

from ops.process.ports import free_port
from schemas.settings import Settings

ROOT = Path(__file__).parents[3]
needs_nginx = pytest.mark.skipif(
    not (NGINX.exists() and JS_MODULE.exists()), reason="Debian's nginx-light, libnginx-mod-http-js are not installed")

VARIABLES = {f"ATTN_{name.upper()}" for name in Settings.model_fields}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def test_compose_fits_its_schema(compose: dict[str, Any]) -> None:
    schema = json.loads((ROOT / "tests/data/compose-spec.json").read_text())
    jsonschema.validators.validator_for(schema)(schema).validate(compose)


def test_compose_refers_to_existing_services_settings_and_files(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= set(services), name
        assert {variable for variable in service.get("environment", {}) if variable.startswith("ATTN_")} <= VARIABLES
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith("./") else source in compose["volumes"], source
        if "build" not in service:
            assert re.search(r":\d+\.\d+", service["image"]), f"{name}: an image without a version"
        if service.get("restart") == "unless-stopped" and name not in ("worker-1", "worker-2", "history", "deliver"):
            assert "healthcheck" in service, name


def test_compose_has_every_service(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert services.keys() >= {
        "kafka", "clickhouse", "topics", "worker-1", "worker-2", "edge-1", "edge-2", "history", "deliver", "nginx"}
    for role in ("worker", "edge"):
        names = {services[f"{role}-{number}"]["environment"]["ATTN_INSTANCE"] for number in (1, 2)}
        assert len(names) == 2


def test_compose_asks_for_secrets_and_has_none(compose: dict[str, Any]) -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert text.count("${ATTN_JWT_SECRET:?") == 2, "two services need it: the edges and `token`"
    for variable, rest in re.findall(r"\$\{(\w+)([^}]*)\}", text):
        assert rest.startswith((":?", ":-")), f"{variable} has neither a default nor a message"
    for variable in re.findall(r"^#?(ATTN_\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE):
        assert variable in VARIABLES


def test_compose_gives_each_service_the_secrets_it_needs_and_no_other(compose: dict[str, Any]) -> None:
    """`env_file` gives a service all variables of .env. The service sets those of other services to empty text."""
    secrets = {"ATTN_CLICKHOUSE", "ATTN_JWT_SECRET", "CLICKHOUSE_PASSWORD", "CLICKHOUSE_READER_PASSWORD",
               "GRAFANA_PASSWORD", "ATTN_SEAL_KEYS", "ATTN_RECEIPT_KEYS"}
    edge, worker = {"ATTN_JWT_SECRET", "ATTN_RECEIPT_KEYS"}, {"ATTN_SEAL_KEYS", "ATTN_RECEIPT_KEYS"}
    needed = {"edge-1": edge, "edge-2": edge, "worker-1": worker, "worker-2": worker, "token": {"ATTN_JWT_SECRET"},
              "history": {"ATTN_CLICKHOUSE"}}
    for name, service in compose["services"].items():
        if service.get("image") == "attn:local":
            given = service["environment"]
            assert {secret for secret in secrets if given[secret] != ""} == needed.get(name, set()), name
            reads = given.get("ATTN_CLICKHOUSE_READ_URL", "")
            assert reads.startswith("http://reader:${CLICKHOUSE_READER_PASSWORD:?") == name.startswith("edge"), name
    grafana = compose["services"]["grafana"]["environment"]
    assert grafana["CLICKHOUSE_USER"] == "reader"
    assert "CLICKHOUSE_READER_PASSWORD" in grafana["CLICKHOUSE_PASSWORD"]
    assert "CLICKHOUSE_DEFAULT_ACCESS_MANAGEMENT" not in compose["services"]["clickhouse"]["environment"]


def test_the_clickhouse_reader_can_only_select_from_attn(compose: dict[str, Any]) -> None:
    path = "ops/deploy/clickhouse/users.d/attn-reader.xml"
    assert f"./{path}:/etc/clickhouse-server/users.d/attn-reader.xml:ro" in compose["services"]["clickhouse"]["volumes"]
    root = ElementTree.parse(ROOT / path).getroot()
    [user] = root.findall("users/*")
    assert user.tag == "reader"
    assert [query.text for query in user.findall("grants/query")] == ["GRANT SELECT ON attn.*"]
    variable = user.find("password").attrib["from_env"]  # type: ignore[union-attr]
    assert variable in compose["services"]["clickhouse"]["environment"]
    profile = root.find(f"profiles/{user.findtext('profile')}")
    assert profile is not None
    assert profile.findtext("readonly") == "2", "with readonly=1 ClickHouse refuses the query limits that edges set"
    for name in ("format_schema", "output_format_schema", "format_template_resultset", "format_template_row"):
        assert profile.find(f"constraints/{name}/readonly") is not None, f"the value of {name} is a file name"


def test_compose_publishes_ports_on_loopback_only(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for port in service.get("ports", []):
            assert port.startswith(("127.0.0.1:", "${ATTN_PUBLIC_ADDRESS:-127.0.0.1}:")), name


def test_the_dockerfile_copies_existing_files() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for line in lines:
        if line.startswith("COPY ") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists()
                assert source.split("/")[0] in kept, f".dockerignore excludes {source}"
    assert "USER 10001" in lines
    assert 'ENTRYPOINT ["attn"]' in lines
    assert any(line.startswith("HEALTHCHECK") for line in lines)


@needs_nginx
def test_nginx_accepts_the_configuration(tmp_path: Path) -> None:
    conf = nginx_conf(tmp_path, free_port(), (1, 2))
    done = subprocess.run([NGINX, "-t", "-q", "-c", conf, "-e", tmp_path / "e"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


Edge = Callable[[int, asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]]


@asynccontextmanager
async def behind_nginx(tmp_path: Path) -> AsyncIterator[int]:
    """Runs nginx in front of two edges. Each answers with its number, and to /feed with a second frame that it sends
    after the client has left."""
    async def edge(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n")
                writer.write(b"transfer-encoding: chunked\r\n\r\n")
                writer.write(b"1\r\n%d\r\n" % number)
                if b"/feed" in head:
                    await reader.read(1)
                writer.write(b"1\r\n!\r\n0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async with nginx_before(tmp_path, edge) as port:
        yield port


@asynccontextmanager
async def nginx_before(tmp_path: Path, edge: Edge, connections: int = 256) -> AsyncIterator[int]:
    """Runs nginx in front of two edges, numbered from 1. Yields the port of nginx."""
    servers = [await asyncio.start_server(lambda r, w, n=n: edge(n, r, w), "127.0.0.1", 0) for n in (1, 2)]
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    try:
        async with running(tmp_path, (ports[0], ports[1]), connections) as port:
            yield port
    finally:
        for server in servers:
            server.close()


def token(workspace: str, user: str) -> str:
    claims = json.dumps({"workspace_id": workspace, "sub": user}).encode()
    return f"e30.{base64.urlsafe_b64encode(claims).decode().rstrip('=')}.sig"


async def ask(port: int, path: str = "/", header: str = "") -> str:
    """Returns the first byte of the response body: the number of the edge."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n{header}\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    await reader.readuntil(b"\r\n")
    edge = (await reader.readexactly(1)).decode()
    writer.close()
    return edge


@needs_nginx
async def test_streams_get_a_retry_delay_while_no_edge_answers(tmp_path: Path) -> None:
    async def edge(_: int, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()  # as an edge that was killed

    async with nginx_before(tmp_path, edge) as port, httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        headers = {"accept": "text/event-stream"}
        answers = [await client.get("/org/me/feed", headers=headers) for _ in range(20)]
        assert {(answer.status_code, answer.headers["content-type"]) for answer in answers} == {
            (200, "text/event-stream")}
        delays = {int(answer.text.removeprefix("retry: ").removesuffix("\n\n")) for answer in answers}
        assert all(1000 <= delay < 5000 for delay in delays)
        assert len(delays) > 1, "readers are spread"
        for answer in (await client.get("/org/me/inbox"), await client.post("/events", json={})):
            assert (answer.status_code, answer.json()) == (502, {"error": "no edge answers"})


@needs_nginx
async def test_nginx_forwards_paths_unchanged(tmp_path: Path) -> None:
    """An edge decodes the ids in a path, so nginx must not change their encoding. nginx refuses paths that leave the
    root, and NUL."""
    received: list[bytes] = []

    async def edge(_: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append((await reader.readuntil(b"\r\n\r\n")).split(b" ")[1])
        writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
        writer.close()

    async def answer(port: int, path: str) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        head = await reader.read()
        writer.close()
        return int(head.split(b" ")[1])

    paths = ["acme%2Fweb%2342", "..%2Fx", "%2F%2F", "%2e%2e", ".", "%25", "%252F", "%3Fa", "%20", "%0A", "%5C",
             "a%2F%2Fb", "%F0%9F%98%80" * 512]
    async with nginx_before(tmp_path, edge) as port:
        for path in paths:
            assert await answer(port, f"/cases/{path}/history?limit=1") == 204
        assert received == [f"/cases/{path}/history?limit=1".encode() for path in paths]
        for path in ("..%2F..%2F..%2Fx", "a%00b"):
            assert await answer(port, f"/cases/{path}/history") == 400
        assert await answer(port, "/%6detrics") == await answer(port, "/a/..%2Fmetrics") == 404


@needs_nginx
async def test_nginx_routes_a_workspace_to_one_edge_and_does_not_buffer_frames(tmp_path: Path) -> None:
    async with behind_nginx(tmp_path) as port:
        edges = {}
        for number in range(20):
            workspace = f"ws_ü{number}"
            answers = {await ask(port, "/", header) for header in (
                f"Authorization: Bearer {token(workspace, 'ann')}\r\n",
                f"authorization: bearer {token(workspace, 'bob')}\r\n",
                f"Cookie: theme=dark; attn_session={token(workspace, 'cyd')}; x=y\r\n",
            )}
            assert len(answers) == 1
            edges[workspace] = answers.pop()
        assert set(edges.values()) == {"1", "2"}
        for header in ("Authorization: Bearer nonsense", "Authorization: Bearer a.b.c", "Cookie: attn_session="):
            assert await ask(port, "/", f"{header}\r\n") in "12"
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 404"), "nginx forwards /metrics of an edge"
        writer.close()
        async with asyncio.timeout(60):  # the edge sends its second frame once this client has read the first and left
            assert await ask(port, "/org/me/feed?last_event_id=5&token=secret") in "12"
    assert "secret" not in (tmp_path / "access.log").read_text()


@needs_nginx
async def test_nginx_limits_connections_by_address_for_any_token(tmp_path: Path) -> None:
    """nginx does not verify tokens, so a caller can choose the edge by its workspace. The limit by address holds for
    the connections to all edges together."""
    async def edge(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n%d\n" % number)
        await reader.read()
        writer.close()

    async with nginx_before(tmp_path, edge, connections=5) as port:
        streams, statuses = [], []
        for number in range(8):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            who = token(f"w{number}", "eve")
            writer.write(f"GET /org/me/feed HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {who}\r\n\r\n".encode())
            statuses.append(int((await reader.readline()).split()[1]))
            streams.append(writer)
        assert statuses == [200] * 5 + [429] * 3
        for writer in streams:
            writer.close()
