"""`attn connect github`: looks after repositories at GitHub, or at a GitHub Enterprise Server."""

from __future__ import annotations

import contextlib
import os
import re
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from ops.cli.commands.sources.connector_options import Listen, MetricsPort, Sweep, start_connector
from ops.cli.commands.sources.key_settings import AttnUrl, KeyFile, load_source_settings
from ops.cli.durations import parse_duration
from ops.cli.options import DataDir
from ops.errors import UserError
from streams.connectors.attn_client import AttnClient
from streams.connectors.github.auth import AppAuthorizer, TokenAuthorizer, app_key
from streams.connectors.github.client import API_URL, Authorizer, GithubClient, checked_base_url
from streams.connectors.github.github_peer import GithubPeer
from streams.connectors.github.sweep import SweepOptions
from streams.connectors.mappings.github import GithubOptions
from streams.connectors.peer import Peer

__all__ = ["github"]

Repository = Annotated[list[str], typer.Option(
    "--repository", metavar="OWNER/NAME", help="Repository to look after; may be repeated. [required]")]
Url = Annotated[str, typer.Option(
    "--url", metavar="URL",
    help="Base URL of the API; of a GitHub Enterprise Server: https://HOST/api/v3. No other host is called.")]
TokenFile = Annotated[Path | None, typer.Option(
    "--token-file", show_default=False, help="File with a token of GitHub. [Default: GITHUB_TOKEN]")]
App = Annotated[str | None, typer.Option(
    "--app", metavar="ID", show_default=False,
    help="Client id or id of a GitHub App. It answers its deployment protection rule, and reads if there is no token.")]
AppKeyFile = Annotated[Path | None, typer.Option(
    "--app-key-file", show_default=False, help="Private key of the app (PEM).")]
AppSlug = Annotated[str | None, typer.Option(
    "--app-slug", metavar="SLUG", show_default=False,
    help="Name of the app in its URL: finds deployments that wait for its rule and that no webhook reported.")]
Options = Annotated[Path | None, typer.Option(
    "--options", show_default=False, help="TOML file with options of the mapping, the same as those of the hook.")]
Lookback = Annotated[str, typer.Option(
    "--lookback", metavar="24h", help="Failed runs that started within this time are found without a webhook.")]
Grace = Annotated[str, typer.Option(
    "--grace", metavar="1m", help="Time that a waiting deployment is left to the webhook. 0s without a webhook.")]

_REPOSITORY = re.compile(r"[A-Za-z0-9_.-]{1,100}/[A-Za-z0-9_.-]{1,100}")
_VARIABLE = "GITHUB_TOKEN"


def github(
    repository: Repository, attn: AttnUrl = None, key_file: KeyFile = None, url: Url = API_URL, sweep: Sweep = 60.0,
    token_file: TokenFile = None, app: App = None, app_key_file: AppKeyFile = None, app_slug: AppSlug = None,
    options: Options = None, lookback: Lookback = "24h", grace: Grace = "1m", listen: Listen = 0,
    metrics_port: MetricsPort = None, data_dir: DataDir = None,
) -> None:
    """Find deployments and failed runs at GitHub, review them, and run failed jobs again.

    The key (ATTN_KEY or --key-file) needs the topics `waitpoints` and `run-failures`. A decision becomes a review with
    the names of the deciders and the decision's id in its comment, an answer of the app's protection rule, or a new run
    of the failed jobs.
    """
    settings = load_source_settings(attn, key_file, metrics_port=metrics_port, data_dir=data_dir)
    for name in repository:
        if not _REPOSITORY.fullmatch(name) or {".", ".."} & set(name.split("/")):
            raise UserError(f"--repository: {name!r} is not OWNER/NAME", code=2)
    try:
        base_url = checked_base_url(url)
    except ValueError as error:
        raise UserError(f"--url: {error}", code=2) from None
    token, own_app = _credentials(token_file, app, app_key_file)
    sweeping = SweepOptions(tuple(dict.fromkeys(repository)), _load_options(options), _seconds(lookback, "--lookback"),
                            _seconds(grace, "--grace"), app_slug or "")

    @contextlib.asynccontextmanager
    async def open_peer(client: AttnClient) -> AsyncIterator[Peer]:
        async with contextlib.AsyncExitStack() as stack:
            acting = [GithubClient(base_url, each) for each in (token, own_app) if each is not None]
            for each in acting:
                stack.push_async_callback(each.close)
            yield GithubPeer(acting[0], client, sweeping, app=acting[-1] if own_app is not None else None)

    start_connector("github", settings, open_peer, sweep=sweep, listen=listen)


def _credentials(token_file: Path | None, app: str | None, key: Path | None) -> tuple[Authorizer | None, ...]:
    """Returns the authorizers of the token and of the app. Raises UserError if there is neither."""
    if (app is None) != (key is None):
        raise UserError("--app and --app-key-file belong together", code=2)
    try:
        own_app = AppAuthorizer(app, app_key(key)) if app is not None and key is not None else None
    except ValueError as error:
        raise UserError(f"--app-key-file: {error}", code=2) from None
    if token_file is not None:
        return TokenAuthorizer(file=token_file), own_app
    if text := os.environ.get(_VARIABLE, "").strip():
        return TokenAuthorizer(text), own_app
    if own_app is None:
        raise UserError(
            f"no credentials of GitHub: set {_VARIABLE}, or pass --token-file, or --app with --app-key-file", code=2)
    return None, own_app


def _load_options(path: Path | None) -> GithubOptions:
    try:
        values = tomllib.loads(path.read_text()) if path is not None else {}
        return GithubOptions.model_validate(values)
    except (OSError, ValueError) as error:
        problem = error.errors(include_url=False)[0] if isinstance(error, ValidationError) else None
        text = f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" if problem is not None else str(error)
        raise UserError(f"--options {path}: {text}", code=2) from None


def _seconds(text: str, option: str) -> float:
    if (seconds := parse_duration(text)) is None:
        raise UserError(f"{option}: {text!r} is not a duration such as 30s, 5m or 8h", code=2)
    return seconds
