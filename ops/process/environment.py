"""Removes from the environment of a process the secrets that its role does not use.

The environment of a process can be read from its files in /proc. The history process answers queries of other users, so
it gets an allow-list: of attn's secrets only Kafka's password and its ClickHouse URL, and of other programs' variables
only well-known ones such as PATH and LANG.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping

from schemas.settings import RENAMED, Settings

__all__ = ["cleaned", "leave_secrets"]

_PREFIX = "attn_"
# URLs that may hold a password, under their old names too.
_URLS = frozenset({"clickhouse", "clickhouse_read_url"})
_URLS |= {old for old, name in RENAMED.items() if name in _URLS}
_SECRETS = _URLS | {name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)}
_USED = {
    "broker": frozenset[str](),
    # The worker seals reply tokens, opens them for `decisions`, and signs those records.
    "worker": frozenset({"kafka_password", "seal_keys", "receipt_keys"}),
    "deliver": frozenset({"kafka_password"}),  # the secrets of endpoints are in a file
    "edge": _SECRETS - {"seal_keys"},  # an edge shows no token, so it opens none
    "history": frozenset({"kafka_password", "clickhouse"}),
    "demo": frozenset({"kafka_password", "jwt_secret"}),
}
_ALLOWED_FOR_HISTORY = re.compile(
    r"PATH|HOME|USER|LOGNAME|LANG|LANGUAGE|LC_\w+|TZ|TERM|COLUMNS|LINES|TMPDIR|VIRTUAL_ENV|PYTHON\w*|LD_\w+|"
    r"SSL_CERT_FILE|SSL_CERT_DIR|NO_COLOR|FORCE_COLOR|MALLOC_\w+|GLIBC_TUNABLES|COVERAGE_\w+|COV_CORE_\w+")
_SECRET_NAME = re.compile(r"SECRET|TOKEN|PASSW|CREDENTIAL|API_?KEY", re.IGNORECASE)


def cleaned(role: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables of `environment` that `role` may have. Names are matched case-insensitively, as settings
    read them."""
    unused = _SECRETS - _USED[role] if role in _USED else frozenset()
    kept = {}
    for name, value in environment.items():
        ours = name.lower().startswith(_PREFIX)
        if ours and name.lower().removeprefix(_PREFIX) in unused:
            continue
        if role == "history" and not ours and not _ALLOWED_FOR_HISTORY.fullmatch(name):
            continue
        kept[name] = value
    return kept


def leave_secrets(role: str) -> None:
    """Restarts this process (exec, same arguments) without the secrets that `role` does not use. Returns if its
    environment has none. Unsetting a variable is not enough: /proc shows the environment at the time of the exec."""
    kept = cleaned(role, os.environ)
    removed = os.environ.keys() - kept.keys()
    if any(name.lower().startswith(_PREFIX) or _SECRET_NAME.search(name) for name in removed):
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(sys.executable, sys.orig_argv, kept)  # noqa: S606 - the same program, no shell
