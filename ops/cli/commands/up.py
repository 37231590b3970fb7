"""`attn up`: runs broker, worker, edge, history and, with endpoints, deliver on one machine."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import sys
import time
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated

import structlog
import typer
from rich.console import Console
from rich.text import Text

from ops import config
from ops.cli import logging_setup
from ops.cli.data.sign_in_links import Person, create_link
from ops.cli.options import ClickHouse, DataDir, Host, Port
from ops.embedded.stack import Stack
from ops.errors import UserError
from schemas.scalars import SECOND, format_timestamp
from schemas.settings import Settings

__all__ = ["up"]

log = structlog.get_logger("attn.up")

KafkaPort = Annotated[int | None, typer.Option(
    "--kafka-port", min=0, max=65535, show_default=False,
    help="Port of the embedded broker on 127.0.0.1; 0: any free port. [ATTN_KAFKA_PORT, else 19092]")]
RealKafka = Annotated[str | None, typer.Option(
    "--kafka", metavar="HOST:PORT", show_default=False,
    help="Use this Kafka instead of the embedded broker. [ATTN_KAFKA]")]

Demo = Annotated[bool, typer.Option("--demo", help="Also play events of an invented team into the workspace `demo`.")]

Open = Annotated[bool, typer.Option("--open", help="Open the browser with a sign-in link when attn is ready.")]

_COLORS = {"worker": "cyan", "edge": "green", "history": "magenta", "deliver": "blue", "demo": "yellow"}


def up(
    data_dir: DataDir = None, host: Host = None, port: Port = None, kafka_port: KafkaPort = None,
    kafka: RealKafka = None, clickhouse: ClickHouse = None, demo: Demo = False, open_browser: Open = False,
) -> None:
    """Run attn on this machine: broker, worker, edge and history, and `attn deliver` if ATTN_ENDPOINTS is set. Ctrl-C
    or SIGTERM stops it cleanly.

    All state is in the data directory. A process that ends is restarted. If the worker, the edge or the broker keeps
    failing, the command ends with the reason and a non-zero exit code.
    """
    settings = config.load_settings(
        data_dir=data_dir, host=host, port=port, kafka_port=kafka_port, kafka=kafka, clickhouse=clickhouse)
    config.check_endpoints(settings)
    config.check_traces(settings)
    logging_setup.configure("up", settings, prefix=f"{'attn':<8}")
    text = logging_setup.is_text(settings)
    env = {"ATTN_LOG_FORMAT": "text" if text else "json"}
    if text and sys.stderr.isatty() and "NO_COLOR" not in os.environ:
        env["FORCE_COLOR"] = "1"
    if "kafka" not in settings.model_fields_set and settings.kafka_security != "PLAINTEXT":
        raise UserError(
            "ATTN_KAFKA_SECURITY needs a Kafka server: set ATTN_KAFKA, or unset ATTN_KAFKA_SECURITY to use the "
            "embedded broker", code=2)
    announce = partial(_announce, demo=demo, open_browser=open_browser)
    stack = Stack(settings, "kafka" not in settings.model_fields_set, env, _echo(text), announce, demo=demo)
    asyncio.run(_until_signal(stack))


async def _until_signal(stack: Stack) -> None:
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(signum) is not signal.SIG_IGN:  # ignored under nohup
            asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    await stack.run(stop)


def _echo(text: bool) -> Callable[[str, str], None]:
    """Returns how to print a line of a process: with its name before it, or as a JSON object."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)

    def as_text(process: str, line: str) -> None:
        console.print(Text(f"{process:<8}", style=_COLORS.get(process, "")), end="")
        console.file.write(f"{line}\n")
        console.file.flush()

    def as_json(process: str, line: str) -> None:
        record = line if line.startswith("{") else json.dumps({"role": process, "level": "info", "event": line})
        sys.stderr.write(f"{record}\n")
        sys.stderr.flush()

    return as_text if text else as_json


async def _announce(settings: Settings, url: str, demo: bool, open_browser: bool) -> None:
    """Prints the banner with a link that signs in on this machine, and opens the link if that is wanted."""
    person = _newcomer() if demo else Person("ws_01", "me", "OWNER")
    try:
        link = await create_link(settings, url, person, "attn up", recorded=False)
    except UserError as error:
        log.warning("no sign-in link could be created; `attn link` creates one", error=str(error))
        link = ""
    _say((demo_banner if demo else banner)(settings, url, link))
    if open_browser and not await asyncio.to_thread(webbrowser.open, link or url):
        log.warning("no browser could be opened; open the address by hand", url=url)


def _newcomer() -> Person:
    # Imported here: without the demo, `attn up` does not spend the 13 MB that its scenarios take.
    from ops.demo.scenarios import PEOPLE
    from ops.demo.users import WORKSPACE

    user, role, name = PEOPLE[0]
    return Person(WORKSPACE, user, role, name)


def _say(text: str) -> None:
    with suppress(OSError):  # stdout is closed
        sys.stdout.write(text)
        sys.stdout.flush()


def demo_banner(settings: Settings, url: str, link: str = "") -> str:
    """Returns the text of a ready `attn up --demo`: URL and how to sign in. `link`: a sign-in link, if there is one."""
    again = f"attn link {_options(_newcomer())}{_where(settings)}"
    if not link:
        return f"\n  attn is ready with the demo: open {url}; a link that signs in is printed by\n\n  {again}\n\n"
    return f"""
  attn is ready with the demo. This link signs you in, once, within ten minutes:

  {link}

  another link  {again}

"""


def _options(person: Person) -> str:
    options = f"--workspace {person.workspace} --user {person.user} --role {person.role}"
    return f"{options} --name {shlex.quote(person.name)}" if person.name is not None else options


def _where(settings: Settings) -> str:
    return "" if settings.data_dir == Path("data") else f" --data-dir {shlex.quote(str(settings.data_dir))}"


def banner(settings: Settings, url: str, link: str = "") -> str:
    """Returns the text of a ready `attn up`: a sign-in link, if there is one, and the first commands to try, ready to
    be pasted."""
    where = _where(settings)
    event = {
        "specversion": "1.0", "id": "hello-1", "source": "/hello", "type": "waitpoint.created", "subject": "hello",
        "time": format_timestamp(int(time.time()) * SECOND), "workspaceid": "ws_01",
        "data": {"title": "Review production deploy", "priority": "high"},
    }
    return f"""
  attn is ready at {url}  (Kafka {settings.kafka}, state in {settings.data_dir})
{_sign_in(link, where)}
  a token       export TOKEN=$(attn token --workspace ws_01 --user me --role OWNER{where})
  a first event echo '{json.dumps(event, separators=(",", ":"))}' | attn emit waitpoints{where}
  the inbox     curl -s {url}/org/me/inbox -H "Authorization: Bearer $TOKEN"
  live          curl -N {url}/org/me/feed -H "Authorization: Bearer $TOKEN"
{_asking(settings)}
"""


def _sign_in(link: str, where: str) -> str:
    again = f"attn link --workspace ws_01 --user me --role OWNER{where}"
    if not link:
        return f"\n  sign in       open the link that this prints: {again}"
    return f"\n  sign in       {link}\n                once, within ten minutes; another link: {again}"


def _asking(settings: Settings) -> str:
    """Returns the line with a query of embedded ClickHouse; empty with a ClickHouse server."""
    if settings.clickhouse:
        return ""
    password, query = shlex.quote(str(settings.clickhouse_password_file)), "FROM activity_by_hour SELECT * LIMIT 10"
    where = f"http://127.0.0.1:{settings.clickhouse_port}"
    return f'  the history   curl -s {where} -u "reader:$(cat {password})" -d "{query}"\n'
