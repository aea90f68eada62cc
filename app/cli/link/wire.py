"""What the command line and a running server say to each other, and where they meet: a Unix socket
beside the store's file, which no browser and no other user can open.

The server greets; the command line sends one request, then at most a wish to stop; the server sends
what the command prints, bytes for a file, signs of life, and last the exit code. Each is one JSON
object a line.
"""

from __future__ import annotations

import base64
import contextlib
import importlib.metadata
import json
import os
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from store.place import file_of

PROTOCOL = 1
# A request holds the plans of a study; the longest answer is the report of a large one.
LONGEST = 256 << 20
BEAT_S = 2.0
_ADDRESS_BYTES = 100


def version() -> str:
    """The installed version, `unknown` in a checkout that is not installed."""
    try:
        return importlib.metadata.version("trimtab")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def place(url: str | None) -> Path | None:
    """The socket of the store that `url`, else TRIMTAB_STORE, else the default names, however its
    file is spelt; None for a database server and for a store in memory. StoreError as in locate.
    """
    file = file_of(url)
    if file is None:
        return None
    real = Path(os.path.realpath(file))
    return real.with_name(real.name + ".socket")


def listen(path: Path) -> socket.socket:
    """A socket at `path` for this user alone, in the place of one that a killed server left; only
    the owner of the store may call this. OSError where the disk holds no sockets.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(f"{path} is no socket")
        path.unlink()
    opened = socket.socket(socket.AF_UNIX)
    try:
        with _address(path) as address:
            opened.bind(address)
        os.chmod(path, 0o600)
        opened.listen(16)
    except OSError:
        opened.close()
        raise
    return opened


def connect(path: Path, seconds: float) -> socket.socket | None:
    """A connection to the server at `path`, which waits at most `seconds` for each answer; None
    when nobody whom this user may trust listens there.
    """
    opened = socket.socket(socket.AF_UNIX)
    opened.settimeout(seconds)
    try:
        with _address(path) as address:
            opened.connect(address)
        if os.getuid() == 0 or is_trusted(opened):
            return opened
    except OSError:
        pass
    opened.close()
    return None


def is_trusted(connection: Any) -> bool:
    """Whether the other side is a process of this user or of the administrator."""
    return peer(connection)[1] in (0, os.getuid())


def peer(connection: Any) -> tuple[int, int]:
    """Process and user id of the other side, as the kernel says."""
    size = struct.calcsize("3i")
    pid, uid, _ = struct.unpack(
        "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    )
    return pid, uid


def frame(**said: Any) -> bytes:
    """One line; bytes become base64."""
    plain = {
        key: base64.b64encode(item).decode() if isinstance(item, bytes) else item
        for key, item in said.items()
    }
    return json.dumps(plain, separators=(",", ":")).encode() + b"\n"


def read(line: bytes) -> dict[str, Any]:
    """The object of a line; ValueError when it is none, or was cut off."""
    document = json.loads(line) if line.endswith(b"\n") else None
    if not isinstance(document, dict):
        raise ValueError("no object in this line")
    return document


@contextlib.contextmanager
def _address(path: Path) -> Iterator[str]:
    """A name of `path` that the kernel takes: it refuses those of more than 107 bytes."""
    if len(os.fsencode(path)) <= _ADDRESS_BYTES:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
