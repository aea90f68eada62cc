"""What stands between the network and the pages: requests under names that are not ours, and those
that other sites send, are turned away.

A page of another site whose name was made to point here (DNS rebinding) still sends that name. A
browser names the site that a request comes from; a page of another site has no business here, be
it by HTTP or by a websocket. Programs name none and are let through: they are no browser's victim.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class KnownHosts:
    """Answers 400 to a request or websocket that is not sent to one of `hosts`, whatever the port;
    a websocket gets 403.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self.app = app
        self.hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or end it."""
        hosts = [value for name, value in scope.get("headers", ()) if name.lower() == b"host"]
        if scope["type"] == "lifespan" or (len(hosts) == 1 and self._host(hosts[0]) in self.hosts):
            await self.app(scope, receive, send)
        else:
            await _refuse(scope, receive, send, "this server does not answer under that name", 400)

    @staticmethod
    def _host(value: bytes) -> str:
        return _name(b"//" + value, ("",)) if value[:1] != b"/" else ""


class KnownOrigins:
    """Answers 403 to a request or websocket whose Origin is not one of `hosts`. An Origin is judged
    here alone: Streamlit, which would ask a server on the internet for this machine's address
    before it knows a colleague's browser, does not see it.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self.app = app
        self.hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or end it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif self._known(scope):
            others = [header for header in scope["headers"] if header[0].lower() != b"origin"]
            await self.app({**scope, "headers": others}, receive, send)
        else:
            await _refuse(scope, receive, send, "requests from other sites are not answered", 403)

    def _known(self, scope: Scope) -> bool:
        origins = [value for name, value in scope["headers"] if name.lower() == b"origin"]
        return all(_name(value, ("http", "https")) in self.hosts for value in origins)


async def _refuse(scope: Scope, receive: Receive, send: Send, why: str, status: int) -> None:
    if scope["type"] == "websocket":
        # A websocket that is closed before it is accepted gets 403 (ASGI, websocket spec).
        await receive()
        await send({"type": "websocket.close", "code": 1008})
    else:
        await PlainTextResponse(why, status)(scope, receive, send)


def _name(url: bytes, schemes: tuple[str, ...]) -> str:
    """The host that a URL of one of these schemes names, and nothing but it and a port; else
    empty.
    """
    try:
        parts = urlsplit(url.decode("ascii"))
        bare = parts.netloc and not (parts.path or parts.query or parts.fragment)
        plain = bare and "@" not in parts.netloc and parts.scheme in schemes
        _ = parts.port
        return (parts.hostname or "").rstrip(".") if plain else ""
    except ValueError:
        return ""
