"""Credentials for GitHub: a token, or the private key of a GitHub App, of which installation tokens are made."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

import jwt

from schemas.scalars import SECOND, parse_timestamp
from streams.connectors.github.client import GithubClient, GithubError
from streams.connectors.github.subjects import repository_path
from streams.connectors.peer import PeerUnavailable

__all__ = ["AppAuthorizer", "TokenAuthorizer", "app_key"]

# Seconds.
_BACKDATED, _VALID = 60, 540  # a JWT of an app: GitHub refuses more than 600 s, and clocks differ
_RENEWED_BEFORE = 300  # an installation token is valid for an hour


class TokenAuthorizer:
    """A personal access token, or any other token. With a `file`, a replaced token is used without a restart."""

    def __init__(self, token: str = "", file: Path | None = None) -> None:
        self._token, self._file = token, file
        self._used = ""

    async def header(self, github: GithubClient, repository: str) -> str:
        self._used = self._read()
        return f"Bearer {self._used}"

    def _read(self) -> str:
        if self._file is None:
            return self._token
        try:
            token = self._file.read_text().strip()
        except OSError as error:
            raise PeerUnavailable(f"the token of GitHub cannot be read: {error}") from None
        if not token or any(character.isspace() for character in token):
            raise PeerUnavailable(f"{self._file} must have the token of GitHub and nothing else")
        return token

    def forget(self, repository: str) -> bool:
        return self._file is not None and self._read() != self._used


class _Token(NamedTuple):
    text: str
    expires: float  # seconds, by GitHub's clock


class AppAuthorizer:
    """A GitHub App. It acts as its installation in the repository (RS256; Authenticating as a GitHub App).

    `app`: its client id or id. `key`: its private key, PEM.
    """

    def __init__(self, app: str, key: str) -> None:
        self.app, self._key = app, key
        self._installations: dict[str, int] = {}
        self._tokens: dict[int, _Token] = {}

    def app_token(self, now: float) -> str:
        """Returns the JWT with which the app acts as itself. `now`: seconds."""
        claims = {"iat": int(now) - _BACKDATED, "exp": int(now) + _VALID, "iss": self.app}
        return jwt.encode(claims, self._key, algorithm="RS256")

    async def header(self, github: GithubClient, repository: str) -> str:
        installation = self._installations.get(repository)
        if installation is None:
            found = await self._as_app(github, "GET", f"{repository_path(repository)}/installation")
            installation = self._installations[repository] = int(found["id"])
        token = self._tokens.get(installation)
        if token is None or token.expires < time.time() + _RENEWED_BEFORE:
            made = await self._as_app(github, "POST", f"/app/installations/{installation}/access_tokens")
            token = _Token(str(made["token"]), parse_timestamp(str(made["expires_at"])) / SECOND)
            self._tokens[installation] = token
        return f"Bearer {token.text}"

    async def _as_app(self, github: GithubClient, method: str, path: str) -> dict[str, Any]:
        """Raises PeerUnavailable for each refusal: an operator has to correct the app or its installation."""
        headers = {"authorization": f"Bearer {self.app_token(time.time())}"}
        answer = await github.send(method, path, headers)
        if answer.status >= 300 or not isinstance(answer.body, dict):
            raise PeerUnavailable(
                f"the GitHub App cannot act on {path}: {GithubError(answer.status, answer.message)}")
        return answer.body

    def forget(self, repository: str) -> bool:
        """Drops the installation and its token: the app may have been installed anew."""
        installation = self._installations.pop(repository, None)
        return installation is not None and self._tokens.pop(installation, None) is not None


def app_key(path: Path) -> str:
    """Returns the private key of an app. Raises ValueError if the file has no RSA key in PEM."""
    try:
        text = path.read_text()
        jwt.encode({}, text, algorithm="RS256")
    except (OSError, ValueError, TypeError, jwt.PyJWTError) as error:
        raise ValueError(f"{path} has no private key of a GitHub App (RSA, PEM): {error}") from None
    return text
