"""Renews sessions with the issuer's refresh token, so that a session ends when its account does (CONTRACT §9).

The row of a session keeps the refresh token sealed, with the time of its next use. Every edge looks for sessions that
are due. An edge claims a session first: it writes a later time, on the condition that the row did not change since
(`if_rev`). The fold lets one of several claims succeed, so one edge uses the token, which an issuer may accept once. An
edge that stops in between leaves the session to another one after CLAIM_SECONDS.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import structlog

from api.commands.command_log import CommandUndecided
from api.contract.errors import ApiError
from api.edge.services import Edge
from api.http.auth.oidc.errors import IssuerRefused, IssuerUnavailable, SignInError
from api.http.auth.oidc.sign_in import SignedIn, SignIn
from api.http.auth.sessions import change_session, end_rows, end_sessions, refresh_token_of, system_fields
from schemas.log import OpenSession
from schemas.views import SessionRow
from streams.core.sealing import SealError

__all__ = ["Renewal", "first_refresh_token"]

CLAIM_SECONDS = 60  # longer than a renewal takes: two requests of 10 s and the writes
_SWEEP_SECONDS = 5.0
_CONCURRENCY = 8  # renewals in progress per edge
_RETRY_SECONDS = 60  # after the issuer did not answer
# Errors of OAuth that say that attn is set up wrongly; they say nothing about the account.
_OWN_ERRORS = frozenset({"invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_scope",
                         "invalid_request", "temporarily_unavailable", "server_error", "slow_down"})

_log = structlog.get_logger("attn.edge")


def first_refresh_token(edge: Edge, token: str | None) -> str | None:
    """Returns a refresh token with the time of its first use, as the row keeps it sealed."""
    return _with_time(token, edge.clock() + edge.settings.oidc_renew.total_seconds()) if token is not None else None


def _with_time(token: str, due: float) -> str:
    return f"{int(due)} {token}"


class Renewal:
    """Renews the due sessions of this issuer that an edge knows."""

    def __init__(self, edge: Edge, sign_in: SignIn) -> None:
        self._edge, self._sign_in = edge, sign_in
        self._times: dict[str, tuple[str, float]] = {}  # session -> sealed token and its time, so it is opened once

    async def run(self) -> None:
        """Renews sessions until it is cancelled."""
        while True:
            await asyncio.sleep(_SWEEP_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - spreads edges
            if self._edge.ready:
                try:
                    await self.sweep()
                except Exception:
                    _log.exception("renewal of sessions failed")

    async def sweep(self) -> int:
        """Renews the sessions that are due now. Returns how many this edge claimed."""
        slots, claimed = asyncio.Semaphore(_CONCURRENCY), 0

        async def one(row: SessionRow, token: str) -> None:
            nonlocal claimed
            async with slots:
                if await self._claim(row, token):
                    claimed += 1
                    await self._renew(row, token)

        await asyncio.gather(*(one(row, token) for row, token in list(self._due())))
        return claimed

    def _due(self) -> Iterator[tuple[SessionRow, str]]:
        """Yields the leading row of each due session, with its refresh token. A session has a row per workspace; the
        first by name leads."""
        edge, now, times = self._edge, self._edge.clock(), self._times
        self._times = {}
        for row in edge.replica.access.sessions.with_refresh_token(self._sign_in.issuer.url):
            assert row.refresh is not None
            if row.ws != min(one.ws for one in edge.replica.access.sessions.of(row.id)):
                continue
            if not edge.replica.serves(row.ws):  # an edge that serves it renews the session and gets the outcome
                continue
            known = times.get(row.id)
            if known is None or known[0] != row.refresh:
                known = (row.refresh, _time_of(edge, row))
            self._times[row.id] = known
            if known[1] <= now and (token := _token_of(edge, row)) is not None:
                yield row, token

    async def _claim(self, row: SessionRow, token: str) -> bool:
        later = _with_time(token, self._edge.clock() + CLAIM_SECONDS)
        try:
            outcome = await change_session(self._edge, row.id, row.ws, refresh_token=later, if_rev=row.rev)
        except (CommandUndecided, ApiError):
            return False
        return outcome.status == 200

    async def _renew(self, row: SessionRow, token: str) -> None:
        try:
            who = await self._sign_in.renew(token, row.subject)
        except IssuerUnavailable as error:
            _log.warning("a session was not renewed, the issuer does not answer", session=row.id, cause=str(error))
            return  # due again after CLAIM_SECONDS
        except SignInError as error:
            if isinstance(error, IssuerRefused) and error.code in _OWN_ERRORS:
                _log.warning("a session was not renewed", session=row.id, cause=str(error))
                return
            _log.info("a session ends, its account was refused", session=row.id, cause=str(error))
            await end_sessions(self._edge, session=row.id, reason="account ended")
            return
        await self._apply(row, token, who)

    async def _apply(self, row: SessionRow, token: str, who: SignedIn) -> None:
        """Stores the next refresh token, and the roles as they are now. Every row that will lead gets the token before
        the one that led is deleted."""
        edge = self._edge
        due = edge.clock() + edge.settings.oidc_renew.total_seconds()
        following = _with_time(who.tokens.refresh_token or token, due)
        await change_session(edge, row.id, row.ws, refresh_token=following)
        held = {one.ws: one for one in edge.replica.access.sessions.of(row.id)}
        granted = {grant.workspace: grant.role for grant in who.account.grants}
        if not granted or row.ws not in held:  # the issuer named no claims, or the session ended meanwhile
            return
        for ws, role in granted.items():
            if ws not in held:
                await edge.command_log.submit(_opened_in(edge, held[row.ws], ws, role))
            elif held[ws].role != role:
                await change_session(edge, row.id, ws, role=role)
        if (lead := min(granted)) in held and lead != row.ws:
            await change_session(edge, row.id, lead, refresh_token=following)
        await end_rows(edge, [(ws, row.id) for ws in held if ws not in granted], "issuer", "role taken away")


def _opened_in(edge: Edge, row: SessionRow, ws: str, role: str) -> OpenSession:
    """Returns the command that lets a session enter one more workspace."""
    return OpenSession(
        **system_fields(edge, ws, row.user), session=row.id, digest=row.digest, role=role, via=row.via,
        expires_at=row.expires_at, idle=row.idle, limit=edge.settings.max_sessions, name=row.name, device=row.device,
        address=row.address, issuer=row.issuer, issuer_sid=row.issuer_sid, subject=row.subject,
        auth_time=row.auth_time, acr=row.acr, refresh=row.refresh)


def _time_of(edge: Edge, row: SessionRow) -> float:
    """Returns when the refresh token is due; infinity if no key opens it."""
    text = _opened(edge, row)
    time, _, _ = (text or "").partition(" ")
    return float(time) if time.isdigit() else float("inf")


def _token_of(edge: Edge, row: SessionRow) -> str | None:
    text = _opened(edge, row)
    return text.partition(" ")[2] or None if text is not None else None


def _opened(edge: Edge, row: SessionRow) -> str | None:
    try:
        return refresh_token_of(edge, row)
    except SealError:
        return None
