"""`attn login` and `attn logout`: sign this terminal in and out (CONTRACT §9, RFC 8628)."""

from __future__ import annotations

import platform
import time
import webbrowser
from importlib import metadata
from typing import Annotated, Any

import httpx
import typer

from ops import config
from ops.cli.commands.sources.key_settings import AttnUrl, url_of
from ops.cli.data.terminal_sessions import TerminalSession, delete_session, read_session, session_file, write_session
from ops.errors import UserError
from streams.runtime.secret_texts import SESSIONS

__all__ = ["login", "logout"]

_TIMEOUT = 30.0
_SLOWER = 5  # seconds by which slow_down lengthens the interval (RFC 8628 section 3.5)
_MAX_INTERVAL = 60
_WAITING = {"authorization_pending", "slow_down"}
_ENDS = {
    "access_denied": "the sign-in was refused on the page",
    "expired_token": "nobody let this terminal in within ten minutes; run `attn login` again",
    "invalid_grant": "the request is not valid any more; run `attn login` again",
}

Open = Annotated[bool, typer.Option("--open", help="Open the page in a browser of this machine.")]
Status = Annotated[bool, typer.Option("--status", help="Print who is signed in here, and do nothing else.")]
Token = Annotated[bool, typer.Option(
    "--token", help="Print the session as a bearer token for other programs, and do nothing else.")]


def login(attn: AttnUrl = None, open_browser: Open = False, status: Status = False, token: Token = False) -> None:
    """Sign this terminal in: open the printed address where you are signed in to attn, and type the printed code there.

    The terminal gets a session of its own. It may do what you may do in the workspace of the page, and ends with the
    session of the browser.
    """
    known = read_session()
    if token:
        typer.echo(_needed(known).session)
    elif status:
        with _client(_needed(known)) as client:
            _print_status(_needed(known), _send(client, "GET", "/org/me"))
    else:
        url = url_of(config.load_settings(url=attn))
        with _client(url) as client:
            _sign_in(client, url, open_browser)
        if known is not None:
            _end(known)  # nothing has its text any more


def logout() -> None:
    """End the session of this terminal, and delete its file."""
    path, known = session_file(), None
    try:
        known = read_session(check_mode=False)
    finally:
        delete_session()
    if known is None:
        typer.echo("not signed in")
    elif not _end(known):
        raise UserError(f"{path} is deleted, but {known.url} did not confirm the end of the session: end it on the "
                        "page, in My sessions")
    else:
        typer.echo(f"signed out of {known.url}")


def _needed(known: TerminalSession | None) -> TerminalSession:
    if known is None:
        raise UserError("not signed in: run `attn login`")
    return known


def _client(to: TerminalSession | str) -> httpx.Client:
    headers = {"user-agent": f"attn/{metadata.version('attn')}"}
    url = to if isinstance(to, str) else to.url
    if not isinstance(to, str):
        headers["authorization"] = f"Bearer {to.session}"
    try:
        return httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT, follow_redirects=False)
    except (httpx.InvalidURL, ValueError) as error:
        raise UserError(f"--attn: {url[:200]!r} is not a URL: {error}", code=2) from None


def _sign_in(client: httpx.Client, url: str, open_browser: bool) -> None:
    """Shows the code, waits for the answer, and stores the session. Raises UserError if there is none."""
    started = _body(_send(client, "POST", "/auth/device", {"device": f"attn on {platform.node()}"[:200]}), 200)
    address, code = started["verification_uri"], started["user_code"]
    typer.echo(f"Open this address in a browser that is signed in to attn:\n\n  {_printable(address)}\n\n"
               f"and type this code there: {_printable(code)}\n")
    if open_browser and not webbrowser.open(address):
        typer.echo("no browser opened: open the address yourself", err=True)
    answer = _wait(client, str(started["device_code"]), int(started["interval"]), int(started["expires_in"]))
    session = TerminalSession(
        url, *(str(answer[name]) for name in ("access_token", "user_id", "workspace_id", "role")))
    write_session(session)
    typer.echo(f"signed in as {_printable(session.user_id)}, {_printable(session.role)} in "
               f"{_printable(session.workspace_id)}; the session is in {session_file()}")


def _wait(client: httpx.Client, device_code: str, interval: int, seconds: int) -> dict[str, Any]:
    """Polls until the person has answered. An edge that does not answer is asked again until the request expires."""
    interval, end = max(1, min(interval, _MAX_INTERVAL)), time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(interval)
        try:
            answer = client.post("/auth/device/token", json={"device_code": device_code})
        except httpx.HTTPError:
            continue
        if answer.status_code >= 500 or answer.status_code == 429:
            continue
        error = None if answer.status_code == 200 else str(_body(answer, answer.status_code).get("error"))
        if error is None:
            return _body(answer, 200)
        if error not in _WAITING:
            raise UserError(_ENDS.get(error, f"attn answered {answer.status_code}: {_printable(error)}"))
        interval += _SLOWER if error == "slow_down" else 0
    raise UserError(_ENDS["expired_token"])


def _end(known: TerminalSession) -> bool:
    """Ends the session at attn. Returns whether it is known to have ended."""
    session = SESSIONS.id_of(known.session)
    try:
        with _client(known) as client:
            answer = client.delete(f"/org/me/sessions/{session}")
    except (httpx.HTTPError, UserError):
        return False
    return answer.status_code in (200, 401, 404)


def _print_status(known: TerminalSession, answer: httpx.Response) -> None:
    if answer.status_code == 401:
        raise UserError(f"the session at {known.url} has ended: run `attn login` again")
    me = _body(answer, 200)
    typer.echo(f"{_printable(known.url)}: {_printable(me['user_id'])}, {_printable(me['role'])} in "
               f"{_printable(me['workspace_id'])}, until {_printable(me['expires_at'])}")


def _send(client: httpx.Client, method: str, path: str, body: object = None) -> httpx.Response:
    try:
        return client.request(method, path, json=body)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UserError(f"{client.base_url} does not answer: {error}") from None


def _body(answer: httpx.Response, expected: int) -> dict[str, Any]:
    """Returns the JSON object of an answer. Raises UserError if it is none, or has another status."""
    try:
        body = answer.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise UserError(f"{answer.request.url} answered {answer.status_code} without JSON: is it the address of attn?")
    if answer.status_code != expected:
        raise UserError(f"attn answered {answer.status_code}: {_printable(str(body.get('error')))}")
    return body


def _printable(text: object) -> str:
    """Returns the text without control characters, which could rewrite what the terminal shows."""
    return "".join(char for char in str(text)[:4000] if char.isprintable())
