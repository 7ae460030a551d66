"""Checks whether the server's certificate is trusted, before any request is sent."""

from __future__ import annotations

import asyncio

import aiohttp
from yarl import URL


class _ConnectedError(aiohttp.ClientError):
    """The connection was made; it stops the request before it is sent."""


class _Connector(aiohttp.TCPConnector):
    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[aiohttp.tracing.Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's own
    ) -> aiohttp.connector.Connection:
        """Make the connection, close it, and stop the request."""
        connection = await super().connect(req, traces, timeout)
        connection.close()
        raise _ConnectedError


async def connect_once(url: URL, proxy: str | None, timeout_s: float) -> None:
    """Make a connection as a Store's own session does, send nothing on it, and close it.

    Raises `aiohttp.ClientConnectorCertificateError`. Other errors may be temporary, so they are
    ignored here.
    """
    async with aiohttp.ClientSession(connector=_Connector(), proxy=proxy) as session:
        del proxy
        try:
            async with asyncio.timeout(timeout_s):
                # OPTIONS, because fakes of aiohttp's session in tests do not answer it.
                response = await session.options(url, allow_redirects=False)
            response.close()
        except aiohttp.ClientConnectorCertificateError:
            raise
        except (aiohttp.ClientError, OSError):
            return
