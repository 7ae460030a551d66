"""A server with a certificate that nobody vouches for, for `localhost` and 127.0.0.1."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

#: Made for these tests with `openssl req -x509 -nodes -days 36500`; its key is no secret.
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBmjCCAUGgAwIBAgIUTPtKt5l55nKTNX0Gc8knLWtJZ74wCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMjIzMjY1OFoYDzIxMjYxMDI5
MjMyNjU4WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAASqrBc667ZeG5eQFsDOIYRuGFimGkeMK+o8PNm165yjw+/3cmoRTzZE
dhTwQf+EdDcJbC2XFF1zidKZ8bE38sZEo28wbTAdBgNVHQ4EFgQUeVV8pezv17BM
jnmRfIszpNqXYTgwHwYDVR0jBBgwFoAUeVV8pezv17BMjnmRfIszpNqXYTgwDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDRwAwRAIgLTRtHsZuINgoU9mMlhj+mkiOvMbVZkZXuANqveeH7d4CIH38
EWGpoXa8m7DnJef6q5NFa+AyPjj9YsnSg8yY9zuL
-----END CERTIFICATE-----
"""
_KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgi4kq6Uco/AHzyVCR
cP+vANZrwtyaoS0PZJuzQ2bVhK+hRANCAASqrBc667ZeG5eQFsDOIYRuGFimGkeM
K+o8PNm165yjw+/3cmoRTzZEdhTwQf+EdDcJbC2XFF1zidKZ8bE38sZE
-----END PRIVATE KEY-----
"""


def trusting() -> ssl.SSLContext:
    """Return a client's context that trusts this one certificate."""
    return ssl.create_default_context(cadata=CERTIFICATE)


def server_context() -> ssl.SSLContext:
    """Return a server's context that shows this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "both.pem"
        path.write_text(CERTIFICATE + _KEY)
        context.load_cert_chain(path)
    return context


@asynccontextmanager
async def serving_tls(answer: bytes) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Give each request the same answer; yields the port, and what was sent inside of TLS."""
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(65536):
                received.append(piece)
                writer.write(answer)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_context())
    async with server:
        yield server.sockets[0].getsockname()[1], received
