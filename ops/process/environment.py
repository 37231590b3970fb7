"""The environment of a role: without the secrets that it does not use.

A process shows its environment to whoever reads its files in /proc. The history answers queries of others, so it gets
nothing else than it needs: of attn's secrets Kafka's password, and no variable of other programs but a few known ones.
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
    "worker": frozenset({"kafka_password"}),
    "history": frozenset({"kafka_password", "clickhouse"}),
    "demo": frozenset({"kafka_password", "jwt_secret"}),
}
_OF_HISTORY = re.compile(
    r"PATH|HOME|USER|LOGNAME|LANG|LANGUAGE|LC_\w+|TZ|TERM|COLUMNS|LINES|TMPDIR|VIRTUAL_ENV|PYTHON\w*|LD_\w+|"
    r"SSL_CERT_FILE|SSL_CERT_DIR|NO_COLOR|FORCE_COLOR|MALLOC_\w+|GLIBC_TUNABLES|COVERAGE_\w+|COV_CORE_\w+")
_SAYS_SECRET = re.compile(r"SECRET|TOKEN|PASSW|CREDENTIAL|API_?KEY", re.IGNORECASE)


def cleaned(role: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for `role`. Names count in any case, as settings read them."""
    unused = _SECRETS - _USED[role] if role in _USED else frozenset()
    found = {}
    for name, value in environment.items():
        own = name.lower().startswith(_PREFIX)
        if own and name.lower().removeprefix(_PREFIX) in unused:
            continue
        if role == "history" and not own and not _OF_HISTORY.fullmatch(name):
            continue
        found[name] = value
    return found


def leave_secrets(role: str) -> None:
    """Starts this process anew, with the same arguments, where its environment holds a secret that `role` does not use:
    a variable that is only unset can still be read in /proc. Returns where there is none."""
    kept = cleaned(role, os.environ)
    gone = os.environ.keys() - kept.keys()
    if any(name.lower().startswith(_PREFIX) or _SAYS_SECRET.search(name) for name in gone):
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(sys.executable, sys.orig_argv, kept)  # noqa: S606 - the same program, no shell
