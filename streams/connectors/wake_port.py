"""HTTP port at which other systems wake a connector: a webhook posted here starts a sweep at once.

The body is not read as data: a hook only wakes, and the sweep reads the truth. So a forged or lost hook changes nothing
but the time of the next sweep.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

from aiohttp import web

__all__ = ["serve_wake_port"]

_MAX_BODY_BYTES = 1 << 20


@contextlib.asynccontextmanager
async def serve_wake_port(port: int, wake: Callable[[], None], host: str = "127.0.0.1") -> AsyncIterator[None]:
    """Serves while the block runs: each POST, on any path, calls `wake` and gets 202. Serves nothing if `port` is 0.

    Raises OSError if the port is in use.
    """
    if not port:
        yield
        return

    async def answer(request: web.Request) -> web.Response:
        with contextlib.suppress(web.HTTPRequestEntityTooLarge):
            await request.read()
        wake()
        return web.Response(status=202)

    app = web.Application(client_max_size=_MAX_BODY_BYTES)
    app.router.add_post("/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield
    finally:
        await runner.cleanup()
