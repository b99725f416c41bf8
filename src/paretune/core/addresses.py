"""Addresses that a server of this machine may listen on: whether they are the loopback's, and a socket bound to one.

Not here: who needs a key or a token for which address (`serve/server.py`, `dashboard/server.py`).

    is_loopback("localhost"); listening("127.0.0.1", 0).getsockname()
"""

from __future__ import annotations

import ipaddress
import socket

from paretune.core.errors import ConfigError, said

MOST_PORT = 65_535


def is_loopback(host: str) -> bool:
    """Whether every address that a host name stands for is the loopback's.

    Raises:
        ConfigError: it stands for none.
    """
    try:
        found = socket.getaddrinfo(host or "0.0.0.0", None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise ConfigError(said(f"--host {host!r}", "an address of this machine, such as 127.0.0.1")) from None
    return all(ipaddress.ip_address(str(one[4][0]).split("%")[0]).is_loopback for one in found)


def listening(host: str, port: int) -> socket.socket:
    """A bound socket; connections are refused until a server listens on it.

    Raises:
        ConfigError: the address is taken or not this machine's.
    """
    if not 0 <= port <= MOST_PORT:  # the resolver takes a larger one modulo 65,536
        raise ConfigError(said(f"--port {port}", f"0 to {MOST_PORT}"))
    one: socket.socket | None = None
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        one = socket.socket(family, kind, number)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(address)
        return one
    except (OSError, UnicodeError, OverflowError) as error:
        if one is not None:
            one.close()
        given = f"{host}:{port} cannot be listened on ({error})"
        raise ConfigError(said(given, "a free address of this machine", do="choose another --port")) from None
