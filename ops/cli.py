"""`attn`, the command line."""

from __future__ import annotations

import inspect
import sys
from importlib import metadata
from typing import Annotated

import typer

from ops.commands.dead_letters import dead_letters
from ops.commands.history import app as history
from ops.commands.kafka import app as kafka
from ops.commands.migrate import migrate
from ops.commands.rank_report import rank_report
from ops.commands.rebuild import checkpoint, rebuild
from ops.commands.roles import demo, edge, worker
from ops.commands.schemas import schemas
from ops.commands.send import emit, replay
from ops.commands.token import token
from ops.commands.topics import topics
from ops.commands.up import up
from ops.errors import UserError

__all__ = ["app", "main"]

app = typer.Typer(
    name="attn", no_args_is_help=True, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A live, ranked inbox for people who work with AI agents. "
         "Settings come from flags, else ATTN_* variables, else .env.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"attn {metadata.version('attn')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


for command in (
    up, worker, edge, demo, topics, migrate, token, emit, replay, schemas, rebuild, checkpoint,
):
    app.command()(command)
app.command("dead-letters")(dead_letters)
app.add_typer(history, name="history")
app.command("rank-report")(rank_report)
app.add_typer(kafka, name="kafka")


def _flow(group: typer.Typer) -> None:
    """Help is as wide as the terminal: only an empty line of a docstring ends one there."""
    for command in group.registered_commands:
        if command.callback is not None and command.callback.__doc__:
            text = inspect.cleandoc(command.callback.__doc__)
            command.help = "\n\n".join(" ".join(part.split("\n")) for part in text.split("\n\n"))
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            _flow(inner.typer_instance)


_flow(app)


def main() -> None:
    """Run the command line. What the user can mend is one line on stderr; a traceback means a bug."""
    try:
        app()
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
