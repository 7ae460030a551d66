"""Opens the ports of a sandbox: its own, and on request one with TLS behind a proxy."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from typing import Final

import attrs

from bc_attrvals.sandbox.certificates import Authority
from bc_attrvals.sandbox.connections import ConnectionServer, PlainConnection
from bc_attrvals.sandbox.emulated_store import Addresses
from bc_attrvals.sandbox.proxy import ConnectProxy

_LOOPBACK: Final = "127.0.0.1"
_SHUTDOWN_S: Final = 0.1
_BACKLOG: Final = 1024


@attrs.frozen(kw_only=True)
class Listening:
    """Where to listen. Ports 0 take free ones; `ca_file` None is a temporary file.

    Another host than a loopback address needs `allow_remote`.
    """

    host: str = _LOOPBACK
    port: int = 0
    https: bool = False
    proxy: bool = False
    proxy_port: int = 0
    ca_file: str | None = None
    allow_remote: bool = False

    def __attrs_post_init__(self) -> None:
        """Refuse a remote host without `allow_remote`."""
        if not self.allow_remote and not _is_loopback(self.host):
            raise ValueError(f"host {self.host!r} can be reached from elsewhere: set allow_remote")


class Listeners:
    """The open ports of one running sandbox."""

    def __init__(self, listening: Listening, server: ConnectionServer) -> None:
        """Serve on the ports with this server; nothing is opened before the start."""
        self._listening = listening
        self._server = server
        self._accepting: list[asyncio.Server] = []
        self._authority: Authority | None = None
        self._proxy: ConnectProxy | None = None

    async def start(self) -> Addresses:
        """Open the ports. Raises OSError if one is taken, RuntimeError for TLS without trustme."""
        listening = self._listening
        context = self._certified().context if listening.https else None
        port = await self._listen(listening.host, listening.port, context)
        scheme = "https" if listening.https else "http"
        ca_file = None if self._authority is None else self._authority.ca_file
        addresses = Addresses(f"{scheme}://{_reachable(listening.host)}:{port}", port, ca_file)
        return await self.open_proxy(addresses) if listening.proxy else addresses

    async def open_proxy(self, addresses: Addresses) -> Addresses:
        """Open the proxy unless it is open; returns the addresses with it."""
        if addresses.proxy_url is not None:
            return addresses
        listening, authority = self._listening, self._certified()
        self._proxy = ConnectProxy((_LOOPBACK, await self._listen(_LOOPBACK, 0, authority.context)))
        port = await self._proxy.start(listening.host, listening.proxy_port)
        url = f"http://{_reachable(listening.host)}:{port}"
        return attrs.evolve(addresses, ca_file=authority.ca_file, proxy_url=url)

    async def _listen(self, host: str, port: int, context: ssl.SSLContext | None) -> int:
        """Accept connections; returns the port."""
        accepting = await asyncio.get_running_loop().create_server(
            lambda: PlainConnection(self._server), host, port, ssl=context, backlog=_BACKLOG
        )
        self._accepting.append(accepting)
        return int(accepting.sockets[0].getsockname()[1])

    def _certified(self) -> Authority:
        if self._authority is None:
            self._authority = Authority(self._listening.ca_file, _reachable(self._listening.host))
        return self._authority

    def stop_accepting(self) -> None:
        """Close the ports; open connections stay."""
        for accepting in self._accepting:
            accepting.close()

    async def aclose(self) -> None:
        """Close all that is open, without sending what is buffered."""
        if self._proxy is not None:
            await self._proxy.aclose()
        self._server.abort_all()
        # A transport closes its socket in the next turn of the loop.
        await asyncio.sleep(0)
        await self._server.shutdown(_SHUTDOWN_S)
        if self._authority is not None:
            self._authority.close()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _reachable(host: str) -> str:
    """Return a name that reaches the host from this machine."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        return _LOOPBACK
    return f"[{host}]" if address.version == 6 else host
