"""Address and key with which a command calls attn as a source: `attn connect`, `attn mcp`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import SecretStr

from ops import config
from ops.errors import UserError
from schemas.settings import Settings
from streams.runtime import private_files
from streams.runtime.source_keys import key_id_of

__all__ = ["AttnUrl", "KeyFile", "load_source_settings", "url_of"]

AttnUrl = Annotated[str | None, typer.Option(
    "--attn", metavar="URL", show_default=False,
    help="URL of attn. [ATTN_URL, else ATTN_HOST and ATTN_PORT of this machine]")]
# There is no option with the key itself: every user of a machine can read the arguments of its processes.
KeyFile = Annotated[Path | None, typer.Option(
    "--key-file", show_default=False,
    help="File with the key that `attn key create` printed. [ATTN_KEY, else ATTN_KEY_FILE]")]


def load_source_settings(attn: str | None, key_file: Path | None, **flags: Any) -> Settings:
    """Returns the settings with `url` and `key` set.

    Raises UserError if there is no key, its file cannot be read, or its text is no key.
    """
    settings = config.load_settings(url=attn, key_file=key_file, **flags)
    text = settings.key.get_secret_value() if settings.key is not None and key_file is None else ""
    if not text and settings.key_file is not None:
        try:
            text = private_files.read_secret(settings.key_file)
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read the key in {settings.key_file}: {error}") from None
    if not text:
        raise UserError("no key: set ATTN_KEY to the key that `attn key create` printed, or pass --key-file", code=2)
    if key_id_of(text) is None:
        raise UserError("the key is not valid: it is attn_, 16 characters, _, and 49 characters, with a checksum in "
                        "the last six; copy it again", code=2)
    return settings.model_copy(update={"url": url_of(settings), "key": SecretStr(text)})


def url_of(settings: Settings) -> str:
    """Returns the URL of attn, without a slash at its end."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return (settings.url or f"http://{host}:{settings.port}").rstrip("/")
