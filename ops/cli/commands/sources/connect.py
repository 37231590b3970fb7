"""`attn connect NAME`: a process that looks after one source. Each connector has its own module beside this one."""

from __future__ import annotations

import typer

from ops.cli.commands.sources.connect_alertmanager import alertmanager
from ops.cli.commands.sources.connect_github import github
from ops.cli.commands.sources.connect_langgraph import langgraph

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    help="Look after one source: read what it asks, bring it the decisions, read back whether they took effect.")


@app.callback()
def _group() -> None:
    """Keeps the name of the source a part of the command, even with one command in the group."""


app.command()(alertmanager)
app.command()(github)
app.command()(langgraph)
