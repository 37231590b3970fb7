"""clickhouse-connect client of the history: for a server by its URL, or for chdb in the data directory."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import clickhouse_connect
from clickhouse_connect.driver.exceptions import DataError, Error

from schemas.scalars import split_database_url
from schemas.settings import DATABASE, Settings
from streams.history.clickhouse.migrate import MigrationError
from streams.runtime import private_files

__all__ = [
    "MIGRATION_SECONDS",
    "ClickHouseError",
    "ClickHouseUnavailable",
    "RowsRefused",
    "connect",
    "directory",
    "translate_errors",
]


_CONNECT_SECONDS = 5
_RESPONSE_SECONDS = 30  # the outcome of an insert that takes longer is unknown
MIGRATION_SECONDS = 3600.0  # a migration may have to sum all rows

# ClickHouse's error codes for "this value does not fit this column" (its ErrorCodes.cpp). Any other error says nothing
# about the rows, so the insert is retried.
_DATA_CODES = frozenset({6, 26, 27, 38, 41, 53, 69, 70, 72, 117, 131, 321, 349, 407, 469})
# Errors that clickhouse-connect raises for a value that it can't encode for a column.
_DATA_ERRORS = (DataError, UnicodeError, AttributeError, TypeError, ValueError, OverflowError, struct.error)


class ClickHouseError(Exception):
    """A statement failed. `answered`: ClickHouse itself reported the error, so it is reachable."""

    def __init__(self, reason: str, answered: bool = False) -> None:
        super().__init__(reason)
        self.answered = answered


class RowsRefused(ClickHouseError):
    """ClickHouse or its client rejects a value of the inserted rows."""


class ClickHouseUnavailable(ClickHouseError):
    """Any other error: the connection, the server, or a statement. The rows are not known to be the cause."""


@contextlib.contextmanager
def translate_errors(rows: bool = False) -> Iterator[None]:
    """Raises errors of clickhouse-connect as ClickHouseUnavailable. With `rows`: as RowsRefused if a value of the rows
    is the cause. ClickHouseError and MigrationError pass unchanged.
    """
    try:
        yield
    except (ClickHouseError, MigrationError):
        raise
    except Exception as error:  # the transport raises many types
        reason = f"{type(error).__name__}: {str(error)[:500]}"
        code = error.code if isinstance(error, Error) else None
        if rows and (code in _DATA_CODES or isinstance(error, _DATA_ERRORS)):
            raise RowsRefused(reason, answered=code is not None) from error
        raise ClickHouseUnavailable(reason, answered=code is not None) from error


def directory(settings: Settings) -> Path:
    """Returns the data directory of chdb."""
    return settings.data_dir / "clickhouse"


def connect(settings: Settings, seconds: float | None = None) -> Any:
    """Returns a client without a default database, because the database may not exist yet. `seconds`: response timeout
    of a server, default 30.

    One process owns the directory of chdb, and one thread at a time may use the client. Raises ClickHouseUnavailable.
    """
    # clickhouse-connect logs rows that it can't encode, with a traceback. Titles of items must not get into logs.
    logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)
    with translate_errors():
        if not settings.clickhouse:
            path = directory(settings)
            private_files.make_private_dir(path)
            if _is_locked(path / "status"):
                raise _in_use(path)
            try:
                return clickhouse_connect.get_client(interface="chdb", path=str(path))
            except Exception as error:
                if "EmbeddedServer" not in str(error):
                    raise
                raise _in_use(path) from None
        dsn, _ = split_database_url(settings.clickhouse, DATABASE)
        return clickhouse_connect.get_client(
            interface=urlsplit(dsn).scheme, dsn=dsn, connect_timeout=_CONNECT_SECONDS,
            send_receive_timeout=_RESPONSE_SECONDS if seconds is None else seconds, autogenerate_session_id=False,
            form_encode_query_params=True,  # lists of event ids don't fit in a URL
            client_name=f"attn-history-{settings.instance}",
        )


def _is_locked(status: Path) -> bool:
    """Whether chdb of another process holds the lock. chdb checks that itself, but prints to stderr each time."""
    try:
        with status.open() as file:
            if f"PID: {os.getpid()}" in file.read().splitlines():
                return False
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released when the file is closed
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _in_use(path: Path) -> ClickHouseUnavailable:
    return ClickHouseUnavailable(f"{path} is in use by another process (`attn history`, `attn up`)")
