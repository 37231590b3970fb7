"""Short text of the device that signs in, from its User-Agent. It is shown in lists of sessions and in the history."""

from __future__ import annotations

import re

from starlette.requests import HTTPConnection

__all__ = ["address_of", "clean_text", "device_of"]

_MAX = 120  # characters
# The first match wins: Edge and Opera also name Chrome, and Chrome also names Safari.
_PROGRAMS = (("Edg", "Edge"), ("OPR", "Opera"), ("Firefox", "Firefox"), ("FxiOS", "Firefox"), ("CriOS", "Chrome"),
             ("Chrome", "Chrome"), ("Safari", "Safari"))
_SYSTEMS = (("Windows", "Windows"), ("Android", "Android"), ("iPhone", "iPhone"), ("iPad", "iPad"),
            ("Mac OS X", "macOS"), ("CrOS", "ChromeOS"), ("Linux", "Linux"))


def device_of(request: HTTPConnection) -> str:
    """Returns browser and system, such as `Firefox on Linux`; of other clients the begin of their User-Agent."""
    agent = request.headers.get("user-agent", "")[:1000]
    program = next((name for part, name in _PROGRAMS if f"{part}/" in agent), None)
    system = next((name for part, name in _SYSTEMS if part in agent), None)
    if program is not None:
        return f"{program} on {system}" if system is not None else program
    return clean_text(agent, _MAX)


def address_of(request: HTTPConnection) -> str:
    """Returns the address of the client, or of the proxy before the edge."""
    return clean_text(request.client.host, 64) if request.client is not None else ""


def clean_text(text: str, limit: int) -> str:
    """Returns the text without control and format characters, with single spaces, and at most `limit` characters."""
    plain = "".join(char if char.isprintable() else " " for char in text[: 4 * limit])
    return re.sub(r"\s+", " ", plain).strip()[:limit]
