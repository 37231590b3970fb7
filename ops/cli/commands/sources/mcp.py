"""`attn mcp`: run the MCP server, with which agents ask people in attn."""

from __future__ import annotations

import importlib.util
import os
from typing import Annotated

import typer

from ops import config
from ops.cli.commands.roles import run_role
from ops.cli.commands.sources.key_settings import AttnUrl, KeyFile, load_source_settings, url_of
from ops.errors import UserError

__all__ = ["mcp"]

_MAX_WAIT = 3600.0  # seconds, as `wait_seconds` of the tools has it
_ANY = ("0.0.0.0", "::")  # noqa: S104 - compared, not listened on

Http = Annotated[str | None, typer.Option(
    "--http", metavar="HOST:PORT", show_default=False,
    help="Serve streamable HTTP at http://HOST:PORT/mcp; each client sends its own key. Default: stdin and stdout.")]
Source = Annotated[str, typer.Option(
    "--source", help="CloudEvents source of the questions. A client may use a path below it: header Attn-Source.")]
Wait = Annotated[float, typer.Option(
    "--wait", min=0, max=_MAX_WAIT,
    help="Seconds that a call waits for an answer unless it says so itself, if the client shows no progress.")]
ProgressWait = Annotated[float, typer.Option(
    "--progress-wait", min=0, max=_MAX_WAIT, help="The same for a client that shows progress.")]
Hosts = Annotated[list[str] | None, typer.Option(
    "--allowed-host", metavar="NAME[:PORT]", show_default=False,
    help="Accepted Host header, besides the address itself. `NAME:*`: any port. May be repeated.")]
Origins = Annotated[list[str] | None, typer.Option(
    "--allowed-origin", metavar="URL", show_default=False,
    help="Accepted Origin header of browser clients. May be repeated.")]


def mcp(
    http: Http = None, source: Source = "/mcp", wait: Wait = 50.0, progress_wait: ProgressWait = 300.0,
    allowed_host: Hosts = None, allowed_origin: Origins = None, attn: AttnUrl = None, key_file: KeyFile = None,
) -> None:
    """Run the MCP server: agents ask people in attn and get their answers, by the tools ask_human, get_answer,
    notify_human, withdraw and list_waiting.

    Over stdin and stdout the key is that of ATTN_KEY. It needs the topics waitpoints and messages.
    """
    if importlib.util.find_spec("mcp") is None:
        raise UserError("`attn mcp` needs the MCP SDK: pip install 'attn[mcp]'")
    if not source.startswith("/") or len(source) > 512 or any(char.isspace() for char in source):
        raise UserError("--source: must be a path such as /mcp, at most 512 characters", code=2)
    from ops.mcp import main  # the SDK takes a second to import
    from ops.mcp.tools import Waits

    waits = Waits(wait, progress_wait)
    if http is not None:
        options = main.HttpOptions(
            *_address(http, allowed_host or []), tuple(allowed_host or ()), tuple(allowed_origin or ()))
        settings = config.load_settings(url=attn)
        run_role("mcp", lambda _, stop: main.serve_http(url_of(settings), source, waits, options, stop), settings)
        return
    settings = load_source_settings(attn, key_file)
    key = settings.key.get_secret_value() if settings.key is not None else ""
    run_role("mcp", lambda _, stop: main.serve_stdio(url_of(settings), key, source, waits, stop), settings)
    os._exit(0)  # a thread of the SDK may still read stdin


def _address(text: str, allowed_hosts: list[str]) -> tuple[str, int]:
    """Returns host and port of `--http`. Raises UserError if the text is no address, or nobody could use it."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise UserError(f"--http: {text[:100]!r} is not HOST:PORT, such as 127.0.0.1:8090", code=2)
    if host in _ANY and not allowed_hosts:
        raise UserError(f"--http: {host} accepts requests for any name: name those of this server with --allowed-host",
                        code=2)
    return host, int(port)
