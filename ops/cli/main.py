"""The command line `attn`: finds the command, imports its module, and runs it."""

from __future__ import annotations

import inspect
import os
import sys
from importlib import metadata
from typing import Annotated, Any

import typer

from ops.cli.imports import import_module
from ops.errors import UserError

__all__ = ["COMMANDS", "build", "main"]

# Command -> module and attribute: a function, or a `typer.Typer` for a command with sub-commands. Only the module of
# the requested command is imported: all of them together take more than a second of CPU.
COMMANDS = {
    "up": "ops.cli.commands.up:up",
    "worker": "ops.cli.commands.roles:worker",
    "edge": "ops.cli.commands.roles:edge",
    "history": "ops.cli.commands.history:app",
    "deliver": "ops.cli.commands.roles:deliver",
    "demo": "ops.cli.commands.roles:demo",
    "topics": "ops.cli.commands.operations.topics:topics",
    "migrate": "ops.cli.commands.operations.migrate:migrate",
    "token": "ops.cli.commands.access.token:token",
    "link": "ops.cli.commands.access.link:link",
    "login": "ops.cli.commands.access.login:login",
    "logout": "ops.cli.commands.access.login:logout",
    "key": "ops.cli.commands.access.key:app",
    "connect": "ops.cli.commands.sources.connect:app",
    "hooks": "ops.cli.commands.sources.hooks:app",
    "roles": "ops.cli.commands.access.role_mapping:app",
    "audit": "ops.cli.commands.access.audit:app",
    "mcp": "ops.cli.commands.sources.mcp:mcp",
    "emit": "ops.cli.commands.records.send:emit",
    "replay": "ops.cli.commands.records.send:replay",
    "dead-letters": "ops.cli.commands.operations.dead_letters:app",
    "decisions": "ops.cli.commands.records.decisions:app",
    "schemas": "ops.cli.commands.records.schemas:schemas",
    "rebuild": "ops.cli.commands.operations.rebuild:rebuild",
    "checkpoint": "ops.cli.commands.operations.rebuild:checkpoint",
    "receipt": "ops.cli.commands.records.receipt:app",
    "rank-report": "ops.cli.commands.records.rank_report:rank_report",
    "kafka": "ops.cli.commands.operations.kafka:app",
    "capacity": "ops.cli.commands.operations.capacity:capacity",
}

def _version(requested: bool) -> None:
    if requested:
        typer.echo(f"attn {metadata.version('attn')}")
        raise typer.Exit


def _root(
    version: Annotated[bool, typer.Option(
        "--version", callback=_version, is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    pass


def build(*names: str) -> typer.Typer:
    """Returns the command line with the commands `names`, or with all commands."""
    app = typer.Typer(
        name="attn", no_args_is_help=True, pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="A live, ranked inbox for people who work with AI agents. "
             "Each setting is read from its flag, else from its ATTN_* variable, else from the file .env.",
    )
    app.callback()(_root)
    for name in names or COMMANDS:
        module, _, attribute = COMMANDS[name].partition(":")
        command: Any = getattr(import_module(module), attribute)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    _flow(app)
    return app


def _requested() -> tuple[str, ...]:
    """Returns the command that the arguments name; nothing if help, an error or completion needs all commands."""
    if sys.argv[1:] == ["--version"]:
        return ("token",)  # the one that imports least
    first = next((argument for argument in sys.argv[1:] if not argument.startswith("-")), "")
    return (first,) if first in COMMANDS and "_ATTN_COMPLETE" not in os.environ else ()


def _flow(group: typer.Typer) -> None:
    """Joins the lines of each paragraph of the docstrings, so that help is as wide as the terminal."""
    for command in group.registered_commands:
        if command.callback is not None and command.callback.__doc__:
            text = inspect.cleandoc(command.callback.__doc__)
            command.help = "\n\n".join(" ".join(part.split("\n")) for part in text.split("\n\n"))
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            _flow(inner.typer_instance)


def without_password(argv: list[str]) -> tuple[list[str], str | None]:
    """Returns the arguments without `--clickhouse URL` if the URL has a password, and that URL."""
    kept, removed, rest = [], None, iter(argv)
    for argument in rest:
        flag, equals, value = argument.partition("=")
        if flag != "--clickhouse":
            kept.append(argument)
            continue
        url = value if equals else next(rest, None)
        if url is not None and "@" in url and ":" in url.partition("://")[2].rpartition("@")[0]:
            removed = url
        else:
            kept += [argument] if equals or url is None else [argument, url]
    return kept, removed


def _hide_password() -> None:
    """Restarts this process (exec) with the URL of `--clickhouse` in its environment if it has a password: every user
    of the machine can read the arguments of a process, but only its owner can read its environment."""
    argv, url = without_password(sys.orig_argv)
    if url is not None and sys.executable:
        os.execve(sys.executable, argv, {**os.environ, "ATTN_CLICKHOUSE": url})  # noqa: S606 - this very command


def main() -> None:
    """Runs the command line. An error that the user can correct is one line on stderr; a traceback means a bug."""
    _hide_password()
    try:
        build(*_requested())()
    except UserError as error:
        typer.echo(f"attn: {error}", err=True)
        sys.exit(error.code)
    except BrokenPipeError:  # | head
        sys.stderr.close()
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
