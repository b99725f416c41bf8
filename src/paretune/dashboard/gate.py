"""Who may look: names that the server answers to, a token where it can be reached from elsewhere, headers of answers.

Not here: pages. On the loopback only its own names are answered, so that no web page reaches the records by a name
that it made point here. A token comes as `Authorization: Bearer`, or once as `?token=` (an address stays in
histories), or in the form of the page that asks for it; the last two are exchanged for a cookie. All comparisons take
constant time.
Sources: https://owasp.org/www-project-secure-headers/, Content Security Policy level 3 (https://www.w3.org/TR/CSP3/).

    app.add_middleware(Gate, rights=Rights(None, LOOPBACK_HOSTS), refuse=refuse, welcome=welcome)
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Callable
from urllib.parse import parse_qs, parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})
COOKIE = "paretune_session"
LOGIN = "/login"
FILES = "/files/"  # style and scripts of the package, no records: the page that asks for the token needs them
MOST_FORM_BYTES = 4096
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
Refuse = Callable[[Request, int, str], Response]  # status and reason → a page
Welcome = Callable[[Request, str], Response]  # where to go on → a page that goes there


class Rights:
    """What the command line gave; `session` is what the cookie holds, new with each start of the server."""

    def __init__(self, token: str | None, hosts: frozenset[str] | None) -> None:
        self.hosts = hosts
        self.session = secrets.token_urlsafe(32)
        self._token = token
        self._link_used = False

    @property
    def open(self) -> bool:
        """No token is asked for."""
        return self._token is None

    def is_token(self, given: str) -> bool:
        """Whether this is the token."""
        return self._token is not None and hmac.compare_digest(self._token.encode(), given.encode("utf-8", "replace"))

    def is_session(self, given: str) -> bool:
        """Whether this is what the cookie of this server holds."""
        return hmac.compare_digest(self.session.encode(), given.encode("utf-8", "replace"))

    def takes_link(self, given: str) -> bool:
        """Whether a link with the token opens the door: the right token, and the first time."""
        if not self.is_token(given) or self._link_used:
            return False
        self._link_used = True
        return True


class Gate:
    """ASGI middleware around all else."""

    def __init__(self, app: ASGIApp, rights: Rights, refuse: Refuse, welcome: Welcome) -> None:
        self._app, self._rights = app, rights
        self._refuse, self._welcome_page = refuse, welcome

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = await self._stopped(Request(scope, receive))
        await (answer or self._app)(scope, receive, sending)

    async def _stopped(self, request: Request) -> Response | None:
        """What is answered in place of the page; None lets through."""
        if self._rights.hosts is not None and host_of(request.headers) not in self._rights.hosts:
            return self._refuse(request, 421, "host")
        if request.url.path == LOGIN and request.method == "POST" and not self._rights.open:
            return await self._login(request)
        if request.method not in ("GET", "HEAD"):
            return self._refuse(request, 405, "method")
        if self._rights.open or request.url.path.startswith(FILES) or self._known(request):
            return None
        given = request.query_params.getlist("token")
        if len(given) == 1 and self._rights.takes_link(given[0]):
            rest = [(name, value) for name, value in parse_qsl(request.url.query) if name != "token"]
            return self._welcome(request, request.url.path + ("?" + urlencode(rest) if rest else ""))
        used = len(given) == 1 and self._rights.is_token(given[0])
        return self._refuse(request, 401, "link" if used else "token")

    def _known(self, request: Request) -> bool:
        given = request.headers.getlist("authorization")
        if len(given) == 1:
            scheme, _, token = given[0].partition(" ")
            return scheme.lower() == "bearer" and self._rights.is_token(token.strip())
        return self._rights.is_session(request.cookies.get(COOKIE, ""))

    async def _login(self, request: Request) -> Response:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MOST_FORM_BYTES:
                return self._refuse(request, 413, "token")
        given = parse_qs(body.decode("utf-8", "replace")).get("token", [])
        if len(given) == 1 and self._rights.is_token(given[0].strip()):
            return self._welcome(request, "/")
        return self._refuse(request, 401, "wrong")

    def _welcome(self, request: Request, path: str) -> Response:
        # A page that goes on by itself, not a redirect: after one, a browser that came from another site's link would
        # keep the strict cookie back. "//host" would be another site's address.
        answer = self._welcome_page(request, "/" + path.lstrip("/\\"))
        answer.set_cookie(COOKIE, self._rights.session, httponly=True, samesite="strict", path="/")
        return answer


def host_of(headers: Headers) -> str:
    """The one Host header without its port; empty where there are several."""
    given = headers.getlist("host")
    return re.sub(r":\d{1,5}$", "", given[0]).lower() if len(given) == 1 else ""
