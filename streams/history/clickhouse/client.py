"""A clickhouse-connect client for the settings: a server by its URL, or chdb in the data directory."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import clickhouse_connect
from clickhouse_connect.driver.exceptions import DataError, Error

from schemas.settings import DATABASE, Settings
from streams.history.clickhouse.migrate import MigrationError
from streams.runtime import private_files

__all__ = [
    "MIGRATION_SECONDS",
    "ClickHouseError",
    "ClickHouseUnavailable",
    "RowsRefused",
    "connect",
    "database_of",
    "directory",
    "translate_errors",
]


# Seconds. A slow insert is no failure; one that takes longer than this is looked for in ClickHouse afterwards.
_CONNECT_SECONDS, _ANSWER_SECONDS = 5, 30
MIGRATION_SECONDS = 3600.0  # a migration may have to make sums of all there is

# ClickHouse's codes for "this value does not fit this column" (its ErrorCodes.cpp). Any other error says nothing of
# the rows: it is waited out.
_DATA_CODES = frozenset({6, 26, 27, 38, 41, 53, 69, 70, 72, 117, 131, 321, 349, 407, 469})
# What clickhouse-connect raises for a value it can't write into a column.
_DATA_ERRORS = (DataError, UnicodeError, AttributeError, TypeError, ValueError, OverflowError, struct.error)


class ClickHouseError(Exception):
    """ClickHouse did not do it. `answered`: it said so itself, so it is there."""

    def __init__(self, reason: str, answered: bool = False) -> None:
        super().__init__(reason)
        self.answered = answered


class RowsRefused(ClickHouseError):
    """A value of these rows is not taken, by ClickHouse or already by its client."""


class ClickHouseUnavailable(ClickHouseError):
    """The rows are not to blame, as far as is known."""


@contextlib.contextmanager
def translate_errors(rows: bool = False) -> Iterator[None]:
    """clickhouse-connect's errors as Unavailable; where `rows` are written, as Refused where a value is to blame."""
    try:
        yield
    except (ClickHouseError, MigrationError):
        raise
    except Exception as error:  # the transport has many of its own
        reason = f"{type(error).__name__}: {str(error)[:500]}"
        code = error.code if isinstance(error, Error) else None
        if rows and (code in _DATA_CODES or isinstance(error, _DATA_ERRORS)):
            raise RowsRefused(reason, answered=code is not None) from error
        raise ClickHouseUnavailable(reason, answered=code is not None) from error


def database_of(settings: Settings) -> str:
    """The database: the URL's path, else `attn`."""
    return unquote(urlsplit(settings.clickhouse).path.strip("/")) or DATABASE


def directory(settings: Settings) -> Path:
    """Where chdb keeps its data."""
    return settings.data_dir / "clickhouse"


def connect(settings: Settings, seconds: float | None = None) -> Any:
    """A client that is not bound to a database, which may not be there yet. Unavailable: nobody there. `seconds`: how
    long a server may take for an answer.

    One process owns the directory of chdb, and one thread at a time may use the client.
    """
    # It logs rows it can't write, with a traceback; we handle those, and titles have no business in logs.
    logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)
    with translate_errors():
        if not settings.clickhouse:
            path = directory(settings)
            private_files.make_private_dir(path)
            if _is_held(path / "status"):
                raise _in_use(path)
            try:
                return clickhouse_connect.get_client(interface="chdb", path=str(path))
            except Exception as error:
                if "EmbeddedServer" not in str(error):
                    raise
                raise _in_use(path) from None
        url = urlsplit(settings.clickhouse)
        return clickhouse_connect.get_client(
            interface=url.scheme, dsn=urlunsplit(url._replace(path="")), connect_timeout=_CONNECT_SECONDS,
            send_receive_timeout=_ANSWER_SECONDS if seconds is None else seconds, autogenerate_session_id=False,
            form_encode_query_params=True,  # lists of event ids don't fit in a URL
            client_name=f"attn-history-{settings.instance}",
        )


def _is_held(status: Path) -> bool:
    """Whether another process' chdb holds its lock. It would say so itself, but past us, on stderr, at each try."""
    try:
        with status.open() as file:
            if f"PID: {os.getpid()}" in file.read().splitlines():
                return False
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # let go of with the file
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _in_use(path: Path) -> ClickHouseUnavailable:
    return ClickHouseUnavailable(f"{path} is in use by another process (`attn history`, `attn up`)")
