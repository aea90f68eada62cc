"""The steps of the offline figure, in a network namespace that has loopback and nothing else."""

from __future__ import annotations

import base64
import http.client
import ipaddress
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.evidence import ROOT

FOREIGN = ("http://evil.test", "http://localhost.evil.test", "https://127.0.0.1.evil.test", "null")
# Run by every Python that starts: each try to reach another address is written to a file.
HOOK = """
import os, sys
def note(event, details, out=os.environ["OFFLINE_LOG"]):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo",
                 "socket.gethostbyname"):
        with open(out, "a") as file:
            file.write(f"{event} {details[1:] if event != 'socket.getaddrinfo' else details!r}\\n")
sys.addaudithook(note)
"""
STRACE = ("strace", "-f", "--seccomp-bpf", "-qq", "-e", "signal=none", "-e",
          "trace=connect,sendto,sendmsg,sendmmsg", "-o")  # fmt: skip
ADDRESS = re.compile(r"sin6?_addr(?:=inet_addr\(|=inet_pton\(AF_INET6, |\", )?\"?([0-9a-f.:]+)")
HOSTS = re.compile(r"'([^']+)'")


@dataclass
class Found:
    """What was tried; `attempts` leave the machine, `wrong` is anything else that is not right."""

    steps: list[str] = field(default_factory=list)
    attempts: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    calls: int = 0
    traced: bool = False


def raise_loopback() -> None:
    """Switch on `lo`, which a new namespace has but keeps down (netdevice(7))."""
    import fcntl

    with socket.socket() as one:
        fcntl.ioctl(one, 0x8914, struct.pack("16sH14x", b"lo", 0x1 | 0x40))


class Offline:
    """Starts our own programs with every network call written down."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found = Found(traced=shutil.which("strace") is not None)
        self.store = folder / "store.duckdb"
        (folder / "hook").mkdir()
        (folder / "hook" / "sitecustomize.py").write_text(HOOK, encoding="utf-8")
        self.log = folder / "python.log"
        self.log.touch()
        self.traces = 0

    def start(self, *words: str) -> subprocess.Popen[str]:
        """`trimtab words` under watch."""
        return self._watch([sys.executable, "-m", "app.cli", *words, "--store", str(self.store)])

    def _watch(self, command: list[str]) -> subprocess.Popen[str]:
        if self.found.traced:
            self.traces += 1
            command = [*STRACE, str(self.folder / f"trace-{self.traces}"), *command]
        path = f"{self.folder / 'hook'}:{os.environ.get('PYTHONPATH', '')}".rstrip(":")
        return subprocess.Popen(
            command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": path, "OFFLINE_LOG": str(self.log)},
        )  # fmt: skip

    def call(self, *words: str) -> str:
        """Run a command to its end; what it printed."""
        running = self.start(*words)
        out, said = running.communicate(timeout=900)
        if running.returncode != 0:
            self.found.wrong.append(
                f"{' '.join(words[:2])} ended with {running.returncode}: {said}"
            )
        self.found.steps.append(words[0])
        return out

    def check_the_watch(self) -> None:
        """A program that does try to leave must be seen by every watch, or the figure is empty."""
        code = "import socket; socket.create_connection(('192.0.2.1', 80), 1)"
        self._watch([sys.executable, "-c", code]).communicate(timeout=60)
        seen = [one for one in self.judge().attempts if "192.0.2.1" in one]
        if len({one.startswith("socket.") for one in seen}) != 1 + self.found.traced:
            self.found.wrong.append(f"the watch does not see all: {seen}")
        self.found.attempts.clear()
        self.found.calls = 0
        self.log.write_text("", encoding="utf-8")
        for trace in self.folder.glob("trace-*"):
            trace.unlink()

    def judge(self) -> Found:
        """Read what was written down."""
        for line in self.log.read_text(encoding="utf-8").splitlines():
            self.found.calls += 1
            if not _local_call(line):
                self.found.attempts.append(line)
        for trace in sorted(self.folder.glob("trace-*")):
            for line in trace.read_text(encoding="utf-8", errors="replace").splitlines():
                if "AF_INET" not in line:
                    continue
                self.found.calls += 1
                addresses = ADDRESS.findall(line)
                if not addresses or not all(map(_loopback, addresses)):
                    self.found.attempts.append(line[:200])
        return self.found


def _local_call(line: str) -> bool:
    """Whether a call of Python's names a file, this machine, or nothing."""
    hosts = HOSTS.findall(line)
    return all(one.startswith(("/", "\\x00")) or one == "localhost" or _loopback(one)
               or not re.search(r"[.:]", one) for one in hosts[:1])  # fmt: skip


def _loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def steps(folder: Path, page: bool = True) -> Found:
    """A study, a report, the dashboard, and what it answers to strangers."""
    raise_loopback()
    offline = Offline(folder)
    offline.check_the_watch()
    study = ("--model", "digits-mlp", "--technique", "static-batch:size=4", "--json")
    ran = json.loads(offline.call("run", *study) or "{}")
    states = [trial["state"] for trial in ran.get("trials", [])]
    if states != ["done", "done"]:
        offline.found.wrong.append(f"the study's trials are {states}")
        return offline.judge()
    report = offline.call("report", "new", ran["study"]["id"], "--title", "Offline?").strip()
    for kind in ("html", "md", "csv", "json"):
        file = folder / f"report.{kind}"
        offline.call("report", "export", report, "--format", kind, "-o", str(file))
        if not file.exists() or file.stat().st_size < 200:
            offline.found.wrong.append(f"the report was not exported as {kind}")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    server = offline.start("serve", "--port", str(port))
    try:
        _answers(offline, server, port)
        if page:
            _draws(offline, port)
    finally:
        for child in _children(server.pid) or [server.pid]:
            os.kill(child, signal.SIGINT)
        try:
            said = "".join(server.communicate(timeout=60))
        except subprocess.TimeoutExpired:
            server.kill()
            said = "".join(server.communicate())
    if "Traceback" in said:
        offline.found.wrong.append(f"the server's log has a traceback: {said[-400:]}")
    return offline.judge()


def _children(pid: int) -> list[int]:
    """What strace runs; a signal to strace itself would only detach it."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except OSError:
        return []
    return [int(one) for one in text.split()]


def _answers(offline: Offline, server: subprocess.Popen[str], port: int) -> None:
    found, home = offline.found, f"localhost:{port}"
    end = time.monotonic() + 120
    while True:
        try:
            status = ask(port, "/api/health", home)
            break
        except OSError:
            if server.poll() is not None or time.monotonic() > end:
                found.wrong.append("the server did not answer")
                return
            time.sleep(0.2)
    found.steps.append("serve")
    for path, headers, wanted in (
        ("/api/health", {}, 200), ("/", {}, 200), ("/compare", {}, 200),
        ("/", {"Origin": f"http://{home}"}, 200),
    ):  # fmt: skip
        status = ask(port, path, home, headers)
        if status != wanted:
            found.wrong.append(f"GET {path} {headers} answered {status}")
    if socket_opens(port, home, f"http://{home}") != 101:
        found.wrong.append("the page's own websocket was turned away")
    for host in ("evil.test", f"evil.test:{port}", "169.254.169.254", "localhost.evil.test"):
        for path in ("/", "/api/health", "/_stcore/health", "/_stcore/host-config"):
            if ask(port, path, host) < 400:
                found.wrong.append(f"GET {path} for the host {host} was answered")
        if socket_opens(port, host, f"http://{host}") == 101:
            found.wrong.append(f"a websocket for the host {host} was opened")
    for origin in FOREIGN:
        for path in ("/", "/api/health", "/_stcore/health"):
            if ask(port, path, home, {"Origin": origin}) < 400:
                found.wrong.append(f"GET {path} from {origin} was answered")
        if socket_opens(port, home, origin) == 101:
            found.wrong.append(f"a websocket from {origin} was opened")
    found.wrong += [f"listens on {one}" for one in listeners() if not _loopback(one)]


def _draws(offline: Offline, port: int) -> None:
    """Every page in a browser, whose own calls are not counted, but whose pages' requests are."""
    chromium = shutil.which("chromium") or "/usr/bin/chromium"
    if not Path(chromium).exists():
        return
    from playwright.sync_api import sync_playwright

    home = f"http://localhost:{port}/"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        asked: list[str] = []
        page.on("request", lambda one: asked.append(one.url))
        for name in ("", "plan", "trials", "compare", "tradeoffs", "reports", "hardware"):
            page.goto(home + name)
            page.wait_for_selector("[data-testid=stApp] h1", timeout=60_000)
        browser.close()
    own = (home, f"ws://localhost:{port}/", "data:", "blob:", "about:")
    offline.found.attempts += [
        f"a page asked for {url}" for url in asked if not url.startswith(own)
    ]
    offline.found.steps.append("pages")


def ask(port: int, path: str, host: str, headers: dict[str, str] | None = None) -> int:
    """The status of GET `path` under the name `host`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.putrequest("GET", path, skip_host=True)
        for name, value in {"Host": host, **(headers or {})}.items():
            connection.putheader(name, value)
        connection.endheaders()
        return connection.getresponse().status
    finally:
        connection.close()


def socket_opens(port: int, host: str, origin: str) -> int:
    """The status of a websocket handshake (RFC 6455); 101 is an open one."""
    key = base64.b64encode(os.urandom(16)).decode()
    return ask(port, "/_stcore/stream", host, {
        "Origin": origin, "Upgrade": "websocket", "Connection": "Upgrade",
        "Sec-WebSocket-Key": key, "Sec-WebSocket-Version": "13",
    })  # fmt: skip


def listeners() -> list[str]:
    """The addresses that anything listens on in this namespace."""
    found = []
    for file, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{file}").read_text(encoding="ascii").splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            if state == "0A":
                raw = bytes.fromhex(local.split(":")[0])
                # The kernel prints each 32-bit word in its own byte order.
                words = struct.unpack(f"={len(raw) // 4}I", raw)
                found.append(socket.inet_ntop(family, struct.pack(f">{len(words)}I", *words)))
    return found
