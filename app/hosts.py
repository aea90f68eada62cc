"""Where the server listens, and under which names it answers."""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
from dataclasses import dataclass

import psutil

from core.errors import BadInput

ADDRESS = "127.0.0.1"
LOCAL = ("localhost", "127.0.0.1")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")


@dataclass(frozen=True)
class Address:
    """`host` and `port` are listened on, `names` are answered to, `shown` is the one that a URL is
    printed with. `warning` is a sentence for a server that other machines may reach, else empty.
    """

    host: str
    port: int
    names: tuple[str, ...]
    shown: str
    warning: str

    @property
    def url(self) -> str:
        """Where a browser finds the pages."""
        return f"http://{f'[{self.shown}]' if ':' in self.shown else self.shown}:{self.port}"


def address_of(host: str, port: int, allowed: tuple[str, ...] = ()) -> Address:
    """The address for --host, --port and every --allow-host; BadInput when nothing can listen
    there, or a name is none.

    A server that listens beyond this machine answers under the machine's own name and addresses as
    well.
    """
    address = _listening(host, port)
    asked = (*LOCAL, *map(_name, allowed))
    if address.is_loopback:
        shown = "localhost" if str(address) == ADDRESS else str(address)
        return Address(str(address), port, _once(*asked, str(address)), shown, "")
    own = socket.gethostname().lower()
    addresses = _own_addresses() if address.is_unspecified else (str(address),)
    names = _once(*asked, *((own,) if _is_name(own) else ()), *addresses)
    shown = own if address.is_unspecified and _is_name(own) else next(iter(addresses), LOCAL[0])
    warning = (
        f"listening on {address}, port {port}, without a login: whoever reaches this port can read"
        f" and start studies. It answers under {', '.join(names)}; --allow-host NAME adds a name"
    )
    return Address(str(address), port, names, shown, warning)


def _listening(host: str, port: int) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address of `host`, on which something could listen just now."""
    if not 0 < port < 65536:
        raise BadInput(f"--port {port}: a port is a number from 1 to 65535")
    wanted = BadInput(
        f"--host {host!r} is no address of this machine: give one of them, or 0.0.0.0 for all"
    )
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host.strip("[]") or "-", port, type=socket.SOCK_STREAM
        )[0]
        address = ipaddress.ip_address(str(place[0]))
    except (OSError, ValueError):
        raise wanted from None
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(place)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise wanted from None
            why = "is already in use" if error.errno == errno.EADDRINUSE else "cannot be used"
            raise BadInput(
                f"port {port} {why}: stop what listens there, or choose another with --port"
            ) from None
    return address


def _name(host: str) -> str:
    """A host name or address as it is compared; BadInput when it is none."""
    name = host.strip().lower().rstrip(".").strip("[]")
    if not _is_name(name):
        raise BadInput(
            f"--allow-host {host!r} is no host: give the name or address as it stands in the"
            " browser's address bar, without http:// and port"
        )
    return name


def _is_name(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return len(name) <= 253 and all(map(_LABEL.fullmatch, name.split(".")))
    return True


def _own_addresses() -> tuple[str, ...]:
    """The addresses of this machine's interfaces, those of links alone and loopback left out."""
    addresses = []
    for interface in psutil.net_if_addrs().values():
        for entry in interface:
            if entry.family in (socket.AF_INET, socket.AF_INET6):
                address = ipaddress.ip_address(entry.address.partition("%")[0])
                if not (address.is_loopback or address.is_link_local):
                    addresses.append(str(address))
    return tuple(addresses)


def _once(*names: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
