"""Who an event names: what was said, else what the system or the proxy knows, else nobody."""

from __future__ import annotations

import os
import pwd

import pytest

from app import who
from core.errors import BadInput


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(who.USER, raising=False)
    monkeypatch.delenv(who.USER_HEADER, raising=False)


def test_a_command_takes_the_flag_then_the_variable_then_the_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert who.of_command(None) == pwd.getpwuid(os.getuid()).pw_name
    monkeypatch.setenv(who.USER, " Grace \n Hopper ")
    assert who.of_command(None) == "Grace Hopper"
    assert who.of_command("Ada") == "Ada"


@pytest.mark.parametrize("name", ["", "  ", "\x1b", "x" * 101])
def test_a_flag_that_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match="--as"):
        who.of_command(name)


def test_a_user_without_a_name_is_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(number: int) -> object:
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert who.of_process() == who.of_command(None) == ""


def test_a_page_believes_the_proxys_header_only_when_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    headers = {"X-Forwarded-User": "ada@example.org"}
    assert who.of_request(headers) == who.of_process()
    monkeypatch.setenv(who.USER_HEADER, "X-Forwarded-User")
    assert who.of_request(headers) == "ada@example.org"
    assert who.of_request({}) == ""
    assert len(who.of_request({"X-Forwarded-User": "x" * 1000})) == 100
