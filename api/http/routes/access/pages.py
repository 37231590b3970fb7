"""Pages for a browser whose sign-in did not work: one sentence, whom to ask, and a link to try again."""

from __future__ import annotations

from html import escape
from urllib.parse import quote

from fastapi.responses import HTMLResponse

from api.contract.errors import NO_STORE

__all__ = ["problem_page"]

_HEADERS = NO_STORE | {
    "content-security-policy": "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; "
                               "form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
}
_PAGE = """<!doctype html>
<html lang="en" data-theme="auto">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <meta name="color-scheme" content="light dark">
  <title>Sign in: attn</title>
  <link rel="icon" type="image/svg+xml" href="/static/icon.svg">
  <link rel="stylesheet" href="/static/page.css">
</head>
<body>
  <main class="elsewhere">
    <h1>{title}</h1>
    <p>{sentence}</p>
    {contact}<p><a class="button primary" href="/auth/login?return_to={target}">Try again</a></p>
  </main>
</body>
</html>
"""


def problem_page(sentence: str, status: int, target: str, contact: str = "") -> HTMLResponse:
    """Returns the page. `target`: where the next attempt leads."""
    asks = f"<p>{escape(contact)}</p>\n    " if contact else ""
    return HTMLResponse(_PAGE.format(
        title="You are not signed in", sentence=escape(sentence), contact=asks, target=escape(quote(target, safe=""))),
        status, _HEADERS)
