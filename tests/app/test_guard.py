"""Requests under other names and of other sites: what the guard lets through, and what it ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.guard import KnownHosts, KnownOrigins


def answer(kind: str, *origins: bytes) -> list[dict[str, Any]]:
    """What the guard sends for a request with these Origin headers; an inner app says `inside`."""
    sent: list[dict[str, Any]] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "inside"})

    async def receive() -> dict[str, Any]:
        return {"type": f"{kind}.connect"}

    async def send(message: Any) -> None:
        sent.append(dict(message))

    scope = {"type": kind, "headers": [(b"origin", one) for one in origins]}
    asyncio.run(KnownOrigins(inner, ["localhost", "127.0.0.1"])(scope, receive, send))  # type: ignore[arg-type]
    return sent


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    "origins", [(), (b"http://localhost:8501",), (b"https://LOCALHOST",), (b"http://127.0.0.1:1",)]
)
def test_our_own_pages_and_programs_pass(kind: str, origins: tuple[bytes, ...]) -> None:
    assert answer(kind, *origins) == [{"type": "inside"}]


@pytest.mark.parametrize(
    "origin",
    [
        b"http://evil.test",
        b"http://localhost.evil.test",
        b"http://evil.test/localhost",
        b"http://localhost@evil.test",
        b"null",
        b"",
        b"file://localhost",
        b"http://[::1",
        b"\xff",
    ],
)
def test_other_sites_are_turned_away(origin: bytes) -> None:
    assert answer("http", origin)[0]["status"] == 403
    assert answer("websocket", origin) == [{"type": "websocket.close", "code": 1008}]


def test_one_known_origin_does_not_carry_another_in() -> None:
    assert answer("http", b"http://localhost", b"http://evil.test")[0]["status"] == 403


def test_an_origin_is_judged_once() -> None:
    seen: list[Any] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen.extend(scope["headers"])

    headers = [(b"host", b"localhost"), (b"Origin", b"http://localhost")]
    scope = {"type": "http", "headers": headers}
    asyncio.run(KnownOrigins(inner, ["localhost"])(scope, None, None))  # type: ignore[arg-type]
    assert seen == headers[:1]


def sent_to(kind: str, *hosts: bytes) -> list[dict[str, Any]]:
    """What the guard sends for a request to these hosts."""
    sent: list[dict[str, Any]] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "inside"})

    async def receive() -> dict[str, Any]:
        return {"type": f"{kind}.connect"}

    async def send(message: Any) -> None:
        sent.append(dict(message))

    scope = {"type": kind, "headers": [(b"host", one) for one in hosts]}
    guard = KnownHosts(inner, ["localhost", "::1", "gpu-box"])
    asyncio.run(guard(scope, receive, send))  # type: ignore[arg-type]
    return sent


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("host", [b"localhost", b"LocalHost:8501", b"[::1]:80", b"gpu-box."])
def test_our_names_are_answered_to_on_every_port(kind: str, host: bytes) -> None:
    assert sent_to(kind, host) == [{"type": "inside"}]


@pytest.mark.parametrize(
    "hosts",
    [
        (),
        (b"",),
        (b"evil.test",),
        (b"localhost.evil.test",),
        (b"evil.test@localhost",),
        (b"localhost/evil",),
        (b"localhost:port",),
        (b"localhost, evil.test",),
        (b"//localhost",),
        (b"\xff",),
        (b"[::1",),
        (b"localhost", b"evil.test"),
    ],
)
def test_other_names_are_not_answered_to(hosts: tuple[bytes, ...]) -> None:
    assert sent_to("http", *hosts)[0]["status"] == 400
    assert sent_to("websocket", *hosts) == [{"type": "websocket.close", "code": 1008}]
