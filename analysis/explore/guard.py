"""Who may talk to the page: a browser on this machine that was given the token, and no other site."""

from __future__ import annotations

import secrets
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOKEN = "token"  # noqa: S105  # the name of a parameter
# `blob:` is for the preview of a picture that was dropped, which the browser has already.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
# A redirect would not do: where the address was opened from another site, such as a terminal in a browser, a browser
# keeps a strict cookie back until this page itself goes on. That replaces the address in the history.
ENTRY = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>Explore</title>'
    '<link rel="icon" href="/static/icon.svg">'
    '<meta http-equiv="refresh" content="0; url=/"><a href="/">Explore</a></html>'
)
NO_TOKEN = "Open the address that the command printed: it has the token without which this page shows nothing.\n"  # noqa: S105
WRONG_HOST = "This page answers to this machine's own name alone: 127.0.0.1, localhost or [::1].\n"
OTHER_SITE = "Another site may not use this page.\n"


def is_loopback(host: str) -> bool:
    """Whether a name or an address, without a port, is this machine's own."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Guard:
    """Lets requests through to an application: with the token, to this machine's own name, and from the page itself.

    The token comes once in the address. The answer to it is a cookie, and the address without the token, so that
    neither the history nor a picture of the screen has it. The name in the request is looked at because a site may
    point a name of its own to this machine (DNS rebinding). Any port is allowed, for a tunnel through SSH.

    Args:
        app: the application.
        token: what the address has.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # the page has no web sockets
            return
        headers = Headers(scope=scope)
        port = scope["server"][1] if scope.get("server") else 0
        answer = _other_name(headers) or self._entry(scope, f"explore-{port}") or _other_site(headers)
        answer = answer if answer is not None else self._without_cookie(headers, f"explore-{port}")

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    own[name] = value
                own.setdefault("Cache-Control", "no-store")
            await send(message)

        await (answer or self._app)(scope, receive, with_headers)

    def _entry(self, scope: Scope, cookie: str) -> Response | None:
        """The answer to the address with the token, which any program may open; None for other requests."""
        words = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        if scope["method"] != "GET" or scope["path"] != "/" or not self._fits(words.get(TOKEN, "")):
            return None
        answer = HTMLResponse(ENTRY)
        answer.set_cookie(cookie, words[TOKEN], httponly=True, samesite="strict")
        return answer

    def _without_cookie(self, headers: Headers, cookie: str) -> Response | None:
        """The refusal of a request whose cookie does not have the token; None for one that has."""
        try:
            known = SimpleCookie(headers.get("cookie", "")).get(cookie)
        except CookieError:
            known = None
        return None if known is not None and self._fits(known.value) else PlainTextResponse(NO_TOKEN, 403)

    def _fits(self, given: str) -> bool:
        return secrets.compare_digest(given.encode("utf-8", "surrogateescape"), self._token)


def _other_name(headers: Headers) -> Response | None:
    """The refusal of a request to a name that is not this machine's own."""
    try:
        name = urlsplit(f"//{headers.get('host', '')}").hostname or ""
    except ValueError:
        name = ""
    return None if is_loopback(name) else PlainTextResponse(WRONG_HOST, 421)


def _other_site(headers: Headers) -> Response | None:
    """The refusal of a request that another site makes, as the browser says."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
    try:
        own = origin is None or urlsplit(origin).netloc == headers.get("host")
    except ValueError:
        own = False
    return None if own and site in ("none", "same-origin") else PlainTextResponse(OTHER_SITE, 403)
