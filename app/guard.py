"""What stands between the network and the pages: requests that other sites send are turned away.

A browser names the site that a request comes from; a page of another site has no business here, be
it by HTTP or by a websocket. Programs name none and are let through: they are no browser's victim.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class KnownOrigins:
    """Answers 403 to a request or websocket whose Origin is not one of `hosts`."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self.app = app
        self.hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or end it."""
        if scope["type"] == "lifespan" or self._known(scope):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            # A websocket that is closed before it is accepted gets 403 (ASGI, websocket spec).
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            answer = PlainTextResponse("requests from other sites are not answered", 403)
            await answer(scope, receive, send)

    def _known(self, scope: Scope) -> bool:
        said = [value for name, value in scope["headers"] if name.lower() == b"origin"]
        return all(self._host(value) in self.hosts for value in said)

    @staticmethod
    def _host(origin: bytes) -> str:
        try:
            found = urlsplit(origin.decode("ascii"))
            return (found.hostname or "") if found.scheme in ("http", "https") else ""
        except ValueError:
            return ""
