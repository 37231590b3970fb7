"""A browser on the dashboard. Records errors, dialogs and violations of the CSP; any of them fails the test."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
from aiokafka import AIOKafkaProducer
from support.processes.up import Up

CHROMIUM = shutil.which("chromium")
# Known in advance: tests sign tokens without waiting for the secret file of `attn up`.
SECRET = "the dashboard's tests sign tokens by themselves with this secret, so that none is waited for"
PATIENCE = 60_000  # milliseconds; long enough for a slow machine
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]
# Runs before every script of the page. Collects violations of the Content-Security-Policy.
WATCH = """
window.refused = [];
document.addEventListener("securitypolicyviolation",
  (event) => refused.push(`${event.violatedDirective} ${event.blockedURI}`));
"""


def moment(minutes: float = 0) -> str:
    return (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat()


class Scene:
    """A running attn, a browser, and one workspace for the test."""

    def __init__(self, up: Up, browser: Any, ws: str) -> None:
        self.up, self.browser, self.ws = up, browser, ws
        self.problems: list[str] = []
        self._contexts: list[Any] = []
        self._number = 0

    def token(self, user: str = "ann", role: str = "OWNER") -> str:
        claims = {"sub": user, "role": role, "workspace_id": self.ws, "name": user.title(),
                  "exp": int(datetime.now(UTC).timestamp()) + 3600}
        return jwt.encode(claims, SECRET, "HS256")

    def event(self, kind: str, subject: str, minutes: float = 0, **data: Any) -> dict[str, Any]:
        self._number += 1
        return {"specversion": "1.0", "id": f"{self.ws}-{self._number}", "source": "/test", "type": kind,
                "subject": subject, "time": moment(minutes), "workspaceid": self.ws, "data": data}

    def emit(self, topic: str, *events: dict[str, Any] | str) -> None:
        """Sends events to the broker; strings are sent unchanged. Uses a new thread: Playwright runs an event loop in
        the calling one."""
        values = [event if isinstance(event, str) else json.dumps(event) for event in events]

        async def send() -> None:
            producer = AIOKafkaProducer(bootstrap_servers=self.up.kafka, linger_ms=5)
            await producer.start()
            try:
                sent = [await producer.send(topic, value.encode()) for value in values]
                await asyncio.gather(*sent)
            finally:
                await producer.stop()

        with ThreadPoolExecutor(1) as pool:
            pool.submit(asyncio.run, send()).result(120)

    def messages(self, *titles: str, **data: Any) -> None:
        """Sends messages with these titles, which are also their subjects."""
        self.emit("messages", *(
            self.event("message.posted", title, -len(titles) + number, title=title, **data)
            for number, title in enumerate(titles)))

    def context(self, **options: Any) -> Any:
        context = self.browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        context.set_default_timeout(PATIENCE)
        context.add_init_script(WATCH)
        self._contexts.append(context)
        return context

    def page(self, context: Any) -> Any:
        page = context.new_page()
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", self._record_console_error)
        page.on("dialog", lambda dialog: (self.problems.append("a dialog"), dialog.dismiss()))
        return page

    def _record_console_error(self, message: Any) -> None:
        # The browser logs failed requests to an edge that is down or has no history. This is no error of the page.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.problems.append(message.text)

    def signed_in(self, user: str = "ann", role: str = "OWNER", context: Any = None, **options: Any) -> Any:
        """Opens a page with the session cookies of a user, as the sign-in form sets them."""
        context = context if context is not None else self.context(**options)
        answer = context.request.post(f"{self.up.url}/auth/session", data={"token": self.token(user, role)})
        assert answer.ok, answer.text()
        page = self.page(context)
        page.goto(self.up.url)
        page.wait_for_selector(".link.live")
        return page

    def close(self) -> None:
        """Closes all pages. Fails if one of them reported an error, a dialog or a policy violation."""
        for context in self._contexts:
            for page in context.pages:
                self.problems += page.evaluate("() => window.refused ?? []")
            context.close()
        assert self.problems == []


@contextmanager
def stage(home: Path, *flags: str, **env: str) -> Iterator[tuple[Up, Any]]:
    """Runs `attn up` and a browser for all tests of a module."""
    from playwright.sync_api import sync_playwright

    up = Up(home, *flags, env={
        "ATTN_HEARTBEAT_SECONDS": "1", "ATTN_JWT_SECRET": SECRET, "ATTN_RECONNECT_SECONDS": "0.5", **env})
    try:
        up.start()
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            yield up, browser
            browser.close()
    finally:
        up.close()


_TITLES = """[...document.querySelectorAll(".row:not(.gone)")]
  .sort((a, b) => a.ariaPosInSet - b.ariaPosInSet).map((row) => row.querySelector(".title").lastChild.textContent)"""


def titles(page: Any) -> list[str]:
    """Returns the titles of the rendered rows, top to bottom."""
    shown: list[str] = page.evaluate(f"() => {_TITLES}")
    return shown


def shows(page: Any, *wanted: str) -> None:
    """Waits until the list shows exactly these titles, in this order."""
    page.wait_for_function(f"(wanted) => JSON.stringify({_TITLES}) === JSON.stringify(wanted)", arg=list(wanted))
