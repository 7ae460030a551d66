"""TLS: handshakes that are cut, certificates that are not trusted, authorities of one's own."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bc_attrvals import (
    AttributeValueFilter,
    AttributeValueUpsert,
    CertificateError,
    ConnectionFailedError,
    RetryPolicy,
    Store,
)
from bc_attrvals.attribute_values import AttributeValues
from bc_attrvals.core.retry import ends_job, is_retryable
from bc_attrvals.writing.sources import Items
from tests.probes import at_rest, upserts
from tests.raw_server import TOKEN, answer, page_body, row
from tests.tls import CERTIFICATE, server_context, serving_tls, trusting
from tests.transport.test_session import chain_of

pytestmark = pytest.mark.usefixtures("no_task_left")

PAGE = answer(page_body([row(1, 1)], total=1, per_page=250, page=1, total_pages=1))
#: RFC 8446, section 6: a fatal alert, "internal_error" and "handshake_failure".
ALERTS = {80: b"\x15\x03\x03\x00\x02\x02\x50", 40: b"\x15\x03\x03\x00\x02\x02\x28"}


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have aiohttp trust the certificate of the tests, as OpenSSL's defaults would."""
    monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", trusting())


@asynccontextmanager
async def cutting(most: int, alert: bytes) -> AsyncIterator[tuple[str, list[int]]]:
    """Cut so many handshakes by an alert, then serve a page over TLS; yields URL and handshakes."""
    handshakes: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handshakes.append(len(handshakes))
        with suppress(OSError, asyncio.IncompleteReadError):
            if len(handshakes) <= most:
                await reader.read(1)
                writer.write(alert)
            else:
                await writer.start_tls(server_context())
                while await reader.readuntil(b"\r\n\r\n"):
                    writer.write(PAGE)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", handshakes


@pytest.mark.parametrize("alert", ALERTS)
async def test_a_handshake_that_an_alert_cuts_is_tried_again(trusted: None, alert: int) -> None:
    retry = RetryPolicy(attempts=4, base_s=0.001, cap_s=0.001)
    async with cutting(2, ALERTS[alert]) as (url, handshakes):
        async with Store("hash", TOKEN, base_url=url, retry=retry) as store:
            assert len((await store.attribute_values.get_page()).data) == 1
            await at_rest(store)
        assert len(handshakes) == 3


async def test_a_handshake_that_is_always_cut_was_never_sent(trusted: None) -> None:
    retry = RetryPolicy(attempts=2, base_s=0.001, cap_s=0.001)
    async with cutting(9, ALERTS[80]) as (url, handshakes):
        async with Store("hash", TOKEN, base_url=url, retry=retry) as store:
            with pytest.raises(ConnectionFailedError) as caught:
                await store.attribute_values.put_batch(upserts(1))
        assert len(handshakes) == 2
    assert is_retryable(caught.value)
    assert not caught.value.may_have_been_applied
    assert chain_of(caught.value) == [caught.value]


async def test_a_certificate_that_is_not_trusted_ends_the_job_and_leaves_its_input_unread() -> None:
    read = 0

    def items():  # type: ignore[no-untyped-def]
        nonlocal read
        for item in upserts(5_000):
            read += 1
            yield item

    async with serving_tls(PAGE) as (port, received):
        url = f"https://127.0.0.1:{port}"
        async with Store("hash", TOKEN, base_url=url) as store:
            with pytest.raises(CertificateError, match="certificate") as caught:
                await store.attribute_values.upsert(items())
            requests = store.statistics().requests
        assert received == []
    assert ends_job(caught.value)
    assert requests <= 3
    assert read < 500


JOBS: dict[str, Callable[[AttributeValues, Items, Path], Awaitable[object]]] = {
    "sync": lambda values, items, _: values.sync(items),
    "sync with prune": lambda values, items, _: values.sync(
        items, scope=AttributeValueFilter(), prune=True
    ),
    "sync with a journal": lambda values, items, path: values.sync(items, journal=path),
    "upsert with a journal": lambda values, items, path: values.upsert(items, journal=path),
    "dry run": lambda values, items, _: values.sync(items, dry_run=True),
    "plan_sync": lambda values, items, _: values.plan_sync(items, scope=None),
}


@pytest.mark.parametrize("name", JOBS)
async def test_a_job_that_reads_all_before_it_calls_reads_nothing_without_trust(
    name: str, tmp_path: Path
) -> None:
    read = 0

    async def items() -> AsyncIterator[AttributeValueUpsert]:
        nonlocal read
        for item in upserts(5_000):
            read += 1
            yield item

    async with serving_tls(PAGE) as (port, received):
        async with Store("hash", TOKEN, base_url=f"https://127.0.0.1:{port}") as store:
            with pytest.raises(CertificateError, match="certificate") as caught:
                await JOBS[name](store.attribute_values, items(), tmp_path / "journal.db")
            assert store.statistics().requests == 0
        assert received == []
    assert read == 0
    assert chain_of(caught.value) == [caught.value]
    if name not in {"dry run", "plan_sync"}:
        report: Any = caught.value.report
        assert (report.calls, report.failed) == (0, 0)


async def test_a_trusted_connection_lets_a_sync_read_its_input(trusted: None) -> None:
    page = answer(page_body([row(1, 1)], total=1, per_page=250, page=1, total_pages=1))
    async with serving_tls(page) as (port, received):
        async with Store("hash", TOKEN, base_url=f"https://127.0.0.1:{port}") as store:
            plan = await store.attribute_values.plan_sync(
                [AttributeValueUpsert(1, 1, "v")], scope=AttributeValueFilter(), prune=True
            )
        assert (plan.unchanged, plan.read_calls, len(received)) == (1, 1, 1)


async def test_what_may_pass_is_left_to_the_requests(unused_tcp_port: int) -> None:
    retry = RetryPolicy(attempts=2, base_s=0.001, cap_s=0.001)
    url = f"https://127.0.0.1:{unused_tcp_port}"
    async with Store("hash", TOKEN, base_url=url, retry=retry) as store:
        with pytest.raises(ConnectionFailedError) as caught:
            await store.attribute_values.sync(upserts(3), scope=AttributeValueFilter(), prune=True)
        assert store.statistics().requests == 2
    assert not isinstance(caught.value, CertificateError)


async def test_a_fingerprint_that_is_another_is_a_certificate_that_is_not_trusted() -> None:
    connector = aiohttp.TCPConnector(ssl=aiohttp.Fingerprint(b"x" * 32))
    async with (
        serving_tls(PAGE) as (port, received),
        aiohttp.ClientSession(connector=connector) as session,
        Store("hash", TOKEN, base_url=f"https://127.0.0.1:{port}", session=session) as store,
    ):
        with pytest.raises(CertificateError, match="fingerprint"):
            await store.attribute_values.put_batch(upserts(1))
        assert received == []


async def test_an_authority_of_ones_own_is_named_by_the_environment(tmp_path: Path) -> None:
    authorities = tmp_path / "authorities.pem"
    authorities.write_text(CERTIFICATE)
    script = (
        "import asyncio, sys\n"
        "from bc_attrvals import Store\n"
        "async def main():\n"
        "    async with Store('hash', 'token', base_url=sys.argv[1]) as store:\n"
        "        print(len((await store.attribute_values.get_page()).data))\n"
        "asyncio.run(main())\n"
    )
    async with serving_tls(PAGE) as (port, _):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            script,
            f"https://127.0.0.1:{port}",
            env={"SSL_CERT_FILE": str(authorities)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate()
    assert output.strip() == b"1", errors.decode()
