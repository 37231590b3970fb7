"""Errors of signing in with the issuer. `str(error)` is the cause, for the log; `sentence` is for the person.

Neither holds a token, a code or a secret.
"""

from __future__ import annotations

__all__ = ["IssuerRefused", "IssuerUnavailable", "SignInError", "TokenRefused"]


class SignInError(Exception):
    """Signing in failed. `status`: of the page that says so."""

    sentence = "Signing in did not work."
    status = 400

    def __init__(self, cause: str, sentence: str | None = None) -> None:
        super().__init__(cause)
        if sentence is not None:
            self.sentence = sentence


class IssuerUnavailable(SignInError):
    """The issuer did not answer, or its answer cannot be used: later it may."""

    sentence = "The service that you sign in with does not answer as expected."
    status = 503


class IssuerRefused(SignInError):
    """The issuer answered with an error of OAuth. `code`: that error, such as `invalid_grant`."""

    sentence = "The service that you sign in with refused the request."

    def __init__(self, code: str, cause: str, sentence: str | None = None) -> None:
        super().__init__(cause, sentence)
        self.code = code


class TokenRefused(SignInError):
    """A token of the issuer is not valid."""

    sentence = "The answer of the service that you sign in with is not valid."
