"""Signs in with the issuer: begins a flow, and turns the issuer's answer into an identity with grants (CONTRACT §9)."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

import structlog

from api.http.auth.oidc.errors import IssuerRefused, IssuerUnavailable, SignInError, TokenRefused
from api.http.auth.oidc.flow import CALLBACK_PATH, Box, Flow, new_flow
from api.http.auth.oidc.issuer import Issuer, Tokens
from api.http.auth.oidc.roles import Account, AccountRefused, RoleMapping, map_account
from api.http.auth.oidc.roles_file import RolesFileError, load_roles
from api.http.auth.oidc.tokens import TokenVerifier
from schemas.settings import Settings

__all__ = ["Answer", "NoWorkspace", "SignIn", "SignedIn"]

_MAX_LOGOUTS = 10_000  # remembered logout tokens
_RELOAD_SECONDS = 2.0  # between two checks whether the roles file has changed

_log = structlog.get_logger("attn.edge")


class NoWorkspace(SignInError):
    """The account is known, and may enter no workspace."""

    sentence = "Your account has no access to a workspace of attn."
    status = 403


@dataclass(frozen=True, slots=True)
class Answer:
    """Parameters with which the issuer sends the browser back."""

    state: str = ""
    code: str = ""
    iss: str = ""
    error: str = ""
    error_description: str = ""


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Who signed in. `claims`: of the ID token, without those of userinfo."""

    account: Account
    claims: Mapping[str, Any]
    tokens: Tokens

    def time_of(self, name: str) -> float | None:
        value = self.claims.get(name)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    def text_of(self, name: str) -> str | None:
        value = self.claims.get(name)
        return value if isinstance(value, str) and 0 < len(value) <= 1000 else None


class SignIn:
    """Sign-in of an edge with `ATTN_OIDC_ISSUER`. `clock` returns seconds since the epoch."""

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        """Raises ValueError if a setting that sign-in needs is missing or invalid."""
        if settings.oidc_issuer is None or settings.oidc_client_id is None or settings.oidc_roles is None:
            raise ValueError("sign-in needs ATTN_OIDC_ISSUER, ATTN_OIDC_CLIENT_ID and ATTN_OIDC_ROLES")
        secret = settings.oidc_client_secret
        self._settings, self._clock = settings, clock
        self.issuer = Issuer(settings.oidc_issuer, settings.oidc_client_id,
                             secret.get_secret_value() if secret is not None else None, clock)
        self.box = Box(settings)
        self._verifier = TokenVerifier(settings.oidc_issuer, settings.oidc_client_id, self.issuer.keys)
        self._mapping: RoleMapping | None = None
        self._stamp: tuple[int, int] | None = None
        self._checked = float("-inf")
        self._logouts: OrderedDict[str, None] = OrderedDict()

    @property
    def name(self) -> str:
        """The name of the issuer on the page."""
        return self._settings.oidc_name or urlsplit(self.issuer.url).hostname or self.issuer.url

    @property
    def contact(self) -> str:
        return self._settings.oidc_contact

    def public_url(self, host: str) -> str:
        """Returns the URL of attn for browsers, without a slash at the end. `host`: of the request, which counts only
        on loopback. Raises SignInError if ATTN_PUBLIC_URL is needed."""
        if self._settings.public_url is not None:
            return self._settings.public_url.rstrip("/")
        name = urlsplit(f"//{host}").hostname or ""
        if name in ("127.0.0.1", "localhost", "::1"):
            return f"http://{host}"
        raise SignInError(f"ATTN_PUBLIC_URL is not set, and {host[:100]!r} is not this machine",
                          "Signing in is not set up for this address.")

    async def begin(self, target: str, base: str, strong: bool = False) -> tuple[Flow, str]:
        """Returns a new flow and the URL of the issuer to which the browser goes. `strong`: as those sign in who decide
        critical risk. Raises SignInError."""
        self.mapping()  # a roles file that cannot be used is known before the person types a password
        discovery, settings = await self.issuer.discover(), self._settings
        max_age = int(settings.critical_max_age.total_seconds()) if strong and settings.critical_max_age else None
        flow = new_flow(self._clock(), target, max_age, settings.critical_acr or None if strong else None)
        fields = {
            "response_type": "code", "client_id": self.issuer.client_id, "redirect_uri": base + CALLBACK_PATH,
            "scope": settings.oidc_scopes, "state": flow.state, "nonce": flow.nonce,
            "code_challenge": flow.challenge, "code_challenge_method": "S256",
        }
        if flow.max_age is not None:
            fields["max_age"] = str(flow.max_age)
        if flow.acr is not None:
            fields["acr_values"] = flow.acr
        glue = "&" if "?" in discovery.authorization_endpoint else "?"
        return flow, discovery.authorization_endpoint + glue + urlencode(fields)

    async def finish(self, flow: Flow, answer: Answer, base: str) -> SignedIn:
        """Returns who signed in. Raises SignInError; NoWorkspace if the roles file gives the account nothing."""
        discovery = await self.issuer.discover()
        if (answer.iss or discovery.sends_iss) and answer.iss != self.issuer.url:  # RFC 9207: a mix-up of issuers
            raise TokenRefused(f"iss: the answer is from {answer.iss[:200]!r}")
        if answer.error or not answer.code:
            sentence = IssuerRefused.sentence
            if answer.error == "access_denied":
                sentence = "The service that you sign in with did not allow it, or you cancelled."
            raise IssuerRefused(answer.error[:100] or "no code", f"the issuer answered {answer.error[:100]!r}: "
                                f"{answer.error_description[:200]!r}", sentence)
        tokens = await self.issuer.exchange(answer.code, flow.verifier, base + CALLBACK_PATH)
        if tokens.id_token is None:
            raise IssuerUnavailable("the token endpoint sent no ID token: is `openid` one of ATTN_OIDC_SCOPES?")
        claims = await self._verifier.id_token(
            tokens.id_token, self._clock(), nonce=flow.nonce, access_token=tokens.access_token, max_age=flow.max_age)
        if flow.acr is not None and claims.get("acr") not in flow.acr.split():
            raise TokenRefused(f"acr: is {str(claims.get('acr'))[:100]!r}, {flow.acr!r} was asked for",
                               "This needs a stronger sign-in, such as one with a second factor.")
        return await self._signed_in(claims, tokens)

    async def renew(self, refresh_token: str, subject: str | None) -> SignedIn:
        """Uses a refresh token and returns the account as it is now; without grants if its claims are not known.

        Raises IssuerRefused or NoWorkspace if the account has ended, else IssuerUnavailable.
        """
        tokens = await self.issuer.renew(refresh_token)
        try:
            claims = await self._renewed_claims(tokens, subject)
            if claims:
                return await self._signed_in(claims, tokens)
        except (TokenRefused, IssuerUnavailable) as error:
            # The issuer took the refresh token, so the account is there: its roles stay until they are known.
            _log.warning("claims of a renewed session cannot be read", cause=str(error))
        return SignedIn(Account("", None, (), (), ()), {}, tokens)

    async def _renewed_claims(self, tokens: Tokens, subject: str | None) -> dict[str, Any]:
        if tokens.id_token is not None:
            claims = await self._verifier.id_token(tokens.id_token, self._clock(), nonce=None)
            if subject is not None and claims["sub"] != subject:
                raise NoWorkspace("sub: the renewed ID token is about another account")
            return claims
        if tokens.access_token is not None and subject is not None:
            return await self.issuer.userinfo(tokens.access_token, subject)
        return {}

    async def _signed_in(self, claims: dict[str, Any], tokens: Tokens) -> SignedIn:
        mapping, known = self.mapping(), claims
        if tokens.access_token is not None and any(name not in claims for name in mapping.claims):
            known = {**await self.issuer.userinfo(tokens.access_token, claims["sub"]), **claims}
        try:
            account = map_account(mapping, known)
        except AccountRefused as error:
            raise NoWorkspace(str(error)) from None
        for note in account.notes:
            _log.warning("roles of an account", user=account.user, note=note)
        if not account.grants:
            raise NoWorkspace(f"no rule of the roles file holds for {account.user!r}; it has the claims "
                              f"{', '.join(sorted(known))[:300]}")
        return SignedIn(account, claims, tokens)

    def mapping(self) -> RoleMapping:
        """Returns the roles file, read again when it has changed. Raises SignInError if there is no usable one; a
        changed file that cannot be used is logged, and the one before stays."""
        path, now = self._settings.oidc_roles, time.monotonic()
        assert path is not None
        if self._mapping is None or now - self._checked >= _RELOAD_SECONDS:
            self._checked = now
            try:
                stat = path.stat()
                if (stamp := (stat.st_mtime_ns, stat.st_size)) != self._stamp:
                    self._mapping, self._stamp = load_roles(path), stamp
            except (OSError, RolesFileError) as error:
                _log.error("ATTN_OIDC_ROLES cannot be used", error=str(error), kept=self._mapping is not None)
        if self._mapping is None:
            raise SignInError(f"{path} cannot be used", "Signing in is not set up completely.")
        return self._mapping

    async def logout(self, token: str) -> tuple[str | None, str | None]:
        """Returns `sid` and `sub` of a logout token, which counts once. Raises TokenRefused."""
        claims = await self._verifier.logout_token(token, self._clock())
        if claims["jti"] in self._logouts:
            raise TokenRefused("jti: this logout token was used already")
        self._logouts[claims["jti"]] = None
        if len(self._logouts) > _MAX_LOGOUTS:
            self._logouts.popitem(last=False)
        return claims.get("sid"), claims.get("sub")

    async def logout_url(self, base: str) -> str | None:
        """Returns the URL at which the browser signs out at the issuer; None if it has none or does not answer."""
        try:
            endpoint = (await self.issuer.discover()).end_session_endpoint
        except IssuerUnavailable:
            return None
        if endpoint is None:
            return None
        fields = {"client_id": self.issuer.client_id, "post_logout_redirect_uri": base + "/"}
        return endpoint + ("&" if "?" in endpoint else "?") + urlencode(fields)
