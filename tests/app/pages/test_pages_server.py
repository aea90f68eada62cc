"""The server as a process: it answers on loopback only, for known hosts only, and ends in order."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from app import server

ROOT = Path(__file__).parents[3]


@dataclass
class Running:
    """A server process and its port."""

    process: subprocess.Popen[str]
    port: int
    store: Path

    def ask(self, path: str, host: str, **more: str) -> tuple[int, dict[str, str], bytes]:
        """GET `path` under the name `host`: status, headers, body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path, headers={"Host": f"{host}:{self.port}", **more})
            answer = connection.getresponse()
            headers = {key.lower(): value for key, value in answer.getheaders()}
            return answer.status, headers, answer.read()
        finally:
            connection.close()


def start(store: Path, port: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "app.cli", "serve", "--port", str(port), "--store", str(store)]
    command += ["--allow-host", "Team.test"]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for all tests of this file."""
    store = tmp_path_factory.mktemp("served") / "store.duckdb"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    found = Running(start(store, port), port, store)
    end = time.monotonic() + 60
    while True:
        try:
            found.ask("/api/health", "localhost")
            break
        except OSError:
            assert found.process.poll() is None, "the server ended at once"
            assert time.monotonic() < end, "the server did not answer"
            time.sleep(0.1)
    yield found
    found.process.kill()
    found.process.wait(20)


def test_health_names_version_store_and_running_studies(running: Running) -> None:
    status, headers, body = running.ask("/api/health", "localhost")
    assert status == 200
    assert headers["content-type"] == "application/json"
    found = json.loads(body)
    assert set(found) == {"version", "store", "running"}
    assert found["store"] == str(running.store)
    assert found["running"] == []


@pytest.mark.parametrize("path", ["/", "/api/health", "/_stcore/health", "/compare"])
def test_a_foreign_host_name_is_turned_away(running: Running, path: str) -> None:
    assert running.ask(path, "evil.test")[0] == 400


@pytest.mark.parametrize("path", ["/", "/api/health", "/_stcore/health"])
@pytest.mark.parametrize("origin", ["https://team.test", "http://localhost:1"])
def test_an_allowed_name_is_answered_and_may_be_an_origin(
    running: Running, path: str, origin: str
) -> None:
    assert running.ask(path, "team.test", Origin=origin)[0] == 200
    assert running.ask(path, "team.test", Origin="https://other.team.test")[0] == 403


@pytest.mark.parametrize("origin", ["https://team.test", "https://evil.test"])
def test_a_page_talks_by_websocket_from_an_allowed_origin_only(
    running: Running, origin: str
) -> None:
    # A proxy in front may name the server otherwise than the browser does.
    status, _, _ = running.ask(
        "/_stcore/stream",
        "localhost",
        Origin=origin,
        Upgrade="websocket",
        Connection="Upgrade",
        **{"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="},
    )
    assert status == (101 if "team" in origin else 403)


def test_pages_may_not_be_framed_or_sniffed(running: Running) -> None:
    _, headers, _ = running.ask("/", "localhost")
    assert headers["x-frame-options"] == "SAMEORIGIN"
    assert headers["x-content-type-options"] == "nosniff"


def test_a_taken_port_is_one_sentence(running: Running, tmp_path: Path) -> None:
    second = start(tmp_path / "other.duckdb", running.port)
    said, _ = second.communicate(timeout=60)
    assert second.returncode == 2
    assert said.strip().splitlines() == [
        f"trimtab: port {running.port} is already in use: stop what listens there, or choose "
        "another with --port"
    ]


def test_a_held_store_is_one_sentence_with_the_address_of_the_dashboard(running: Running) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    second = start(running.store, port)
    said, _ = second.communicate(timeout=60)
    assert second.returncode == 2
    assert len(said.strip().splitlines()) == 1
    assert f"at http://localhost:{running.port} (PID {running.process.pid})" in said


def test_ctrl_c_ends_the_server_in_order_and_gives_the_store_back(running: Running) -> None:
    running.process.send_signal(signal.SIGINT)
    said, _ = running.process.communicate(timeout=30)
    assert running.process.returncode == 0
    assert f"http://localhost:{running.port}" in said
    assert "Traceback" not in said
    from store import open_store

    open_store(str(running.store)).close()


def test_config_file_and_server_agree_on_what_is_safe() -> None:
    written = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text(encoding="utf-8"))
    for name, value in server.SAFE.items():
        section, _, key = name.partition(".")
        if name != "browser.serverAddress":
            assert written[section][key] == value, name
