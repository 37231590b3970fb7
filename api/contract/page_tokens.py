"""Page tokens: opaque text in a response's `next` that a client sends back to get the following page."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error

__all__ = ["InvalidPageToken", "decode_page_token", "encode_page_token"]


class InvalidPageToken(ValueError):
    """The text is not a page token that this API issued."""

    def __init__(self) -> None:
        super().__init__("next: not a page token")


def encode_page_token(payload: bytes) -> str:
    """Returns the payload as URL-safe base64 without padding."""
    return urlsafe_b64encode(payload).decode().rstrip("=")


def decode_page_token(text: str) -> bytes:
    """Returns the payload of a token. Raises InvalidPageToken if the text is not URL-safe base64."""
    try:
        return urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (Base64Error, ValueError) as error:
        raise InvalidPageToken from error
