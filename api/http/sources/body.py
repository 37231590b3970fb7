"""Reads the body of `POST /events` within its limits: bytes on the wire, inflated bytes, and the buffer of the edge."""

from __future__ import annotations

from fastapi import Request

from api.contract.errors import ApiError
from api.intake.gzip_body import GzipError, GzipReader, InflatedTooLarge
from api.intake.sender import Reservation

__all__ = ["read_body"]

_IDENTITY, _GZIP = ("", "identity"), ("gzip", "x-gzip")


async def read_body(request: Request, limit: int, reservation: Reservation) -> bytes:
    """Returns the body, inflated if it is gzip. Each piece is reserved before the next one is read.

    Raises ApiError 415 for another encoding, 400 for bytes that are no gzip, 413 above `limit`, and BufferFull.
    `BodyLimitMiddleware` limits the bytes on the wire.
    """
    encoding = ",".join(request.headers.getlist("content-encoding")).strip().lower()
    if encoding not in (*_IDENTITY, *_GZIP):
        raise ApiError(415, f"content-encoding: {encoding[:100]!r} is not supported; send gzip, or none",
                       {"accept-encoding": "gzip"})
    gzip = GzipReader(limit) if encoding in _GZIP else None
    body = bytearray()
    try:
        async for chunk in request.stream():
            for piece in gzip.feed(chunk) if gzip is not None else (chunk,):
                reservation.grow(len(piece))
                body += piece
        if gzip is not None:
            gzip.close()
    except GzipError as error:
        raise ApiError(400, str(error)) from None
    except InflatedTooLarge as error:
        raise ApiError(413, str(error), limit=limit) from None
    return bytes(body)
