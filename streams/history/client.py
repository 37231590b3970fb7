"""A clickhouse-connect client for the settings: a server by its URL, or chdb in the data directory."""

from __future__ import annotations

import contextlib
import logging
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import clickhouse_connect
from clickhouse_connect.driver.exceptions import DataError, Error

from schemas.settings import Settings

__all__ = ["DATABASE", "Refused", "Unavailable", "connect", "database_of", "translated"]

DATABASE = "attn"

# Seconds. A slow insert is no failure; one that takes longer than this is looked for in ClickHouse afterwards.
_CONNECT_SECONDS, _ANSWER_SECONDS = 5, 30

# ClickHouse's codes for "this value does not fit this column" (its ErrorCodes.cpp). Any other error says nothing of
# the rows: it is waited out.
_DATA_CODES = frozenset({6, 26, 27, 38, 41, 53, 69, 70, 72, 117, 131, 321, 349, 407, 469})
# What clickhouse-connect raises for a value it can't write into a column.
_DATA_ERRORS = (DataError, UnicodeError, AttributeError, TypeError, ValueError, OverflowError, struct.error)


class Failed(Exception):
    """ClickHouse did not do it. `answered`: it said so itself, so it is there."""

    def __init__(self, reason: str, answered: bool = False) -> None:
        super().__init__(reason)
        self.answered = answered


class Refused(Failed):
    """A value of these rows is not taken, by ClickHouse or already by its client."""


class Unavailable(Failed):
    """The rows are not to blame, as far as is known."""


@contextlib.contextmanager
def translated(rows: bool = False) -> Iterator[None]:
    """clickhouse-connect's errors as Unavailable; where `rows` are written, as Refused where a value is to blame."""
    try:
        yield
    except Exception as error:  # the transport has many of its own
        reason = f"{type(error).__name__}: {str(error)[:500]}"
        code = error.code if isinstance(error, Error) else None
        if rows and (code in _DATA_CODES or isinstance(error, _DATA_ERRORS)):
            raise Refused(reason, answered=code is not None) from error
        raise Unavailable(reason, answered=code is not None) from error


def database_of(settings: Settings) -> str:
    """The database: the URL's path, else `attn`."""
    return unquote(urlsplit(settings.clickhouse).path.strip("/")) or DATABASE


def connect(settings: Settings) -> Any:
    """A client that is not bound to a database, which may not be there yet. Unavailable: nobody there.

    One process owns the directory of chdb, and one thread at a time may use the client.
    """
    # It logs rows it can't write, with a traceback; we handle those, and titles have no business in logs.
    logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)
    with translated():
        if not settings.clickhouse:
            path = Path(settings.data_dir) / "clickhouse"
            path.mkdir(parents=True, exist_ok=True)
            return clickhouse_connect.get_client(interface="chdb", path=str(path))
        url = urlsplit(settings.clickhouse)
        return clickhouse_connect.get_client(
            interface=url.scheme, dsn=urlunsplit(url._replace(path="")), connect_timeout=_CONNECT_SECONDS,
            send_receive_timeout=_ANSWER_SECONDS, autogenerate_session_id=False,
            form_encode_query_params=True,  # lists of event ids don't fit in a URL
            client_name=f"attn-history-{settings.instance}",
        )
