"""The sandbox in a thread of its own, controlled from other threads and loops."""

from __future__ import annotations

import asyncio
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from bc_attrvals.sandbox import Addresses, Fault, Quirks, ThreadedSandbox


def status(sandbox: ThreadedSandbox, method: str = "GET", body: bytes | None = None) -> int:
    path = f"/stores/{sandbox.store_hash}/v3/customers/attribute-values"
    request = urllib.request.Request(sandbox.url + path, body, method=method)
    request.add_header("X-Auth-Token", sandbox.access_token)
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def threads() -> list[str]:
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith("bc-attrvals")]


def test_everything_is_reached_from_the_tests_thread() -> None:
    with ThreadedSandbox(quota=10) as sandbox:
        assert sandbox.seed([(1, 1, "a"), (2, 1, "b")]) == 2
        sandbox.fail_next("503", None, "slow,delay_s=0.001", operation="list", times=2)
        assert [status(sandbox) for _ in range(7)] == [503, 200, 200, 503, 200, 200, 200]
        assert status(sandbox, "PUT", b"[]") == 422
        assert [one.sequence for one in sandbox.requests_of("upsert")] == [8]
        assert (sandbox.statuses[503], sandbox.calls["list"], sandbox.quota_left) == (2, 7, 2)
        sandbox.spend(1)
        sandbox.set_quota(9)
        assert (status(sandbox, "DELETE"), sandbox.count_429) == (429, 1)
        number = sandbox.add_fault(Fault("500"))
        assert (sandbox.remove_fault(number), sandbox.remove_fault(number)) == (True, False)
        assert sandbox.values() == {(1, 1): "a", (2, 1): "b"}
        assert sandbox.delete_rows([sandbox.rows()[0].id]) == 1
        sandbox.define(customers={7: "ann@example.org"}, attributes={"Tier": "string"})
        assert [(one.id, one.email) for one in sandbox.customers()] == [(7, "ann@example.org")]
        assert [(one.id, one.name) for one in sandbox.attributes()] == [(1, "Tier")]
        assert sandbox.delete_customers([7]) == 1
        sandbox.set_quirks(Quirks(order="id_desc"))
        assert sandbox.call(lambda inner: inner.quirks.order) == "id_desc"
        sandbox.reject_customers([5, 6])
        sandbox.accept_customers([5])
        assert sandbox.call(lambda inner: inner.rejected_customers) == {6}
        sandbox.latency_ms = 1
        sandbox.reset(["log"])
        assert (sandbox.requests, sandbox.count(), sandbox.latency_ms) == ([], 1, 1)
        sandbox.reset()
        assert (sandbox.count(), sandbox.quota_left, sandbox.windows) == (0, 9, sandbox.windows)
        assert (sandbox.in_flight(), sandbox.peak_in_flight("list")) == (0, 0)
        assert sandbox.access_token not in repr(sandbox)
        assert sandbox.addresses == Addresses(sandbox.url, sandbox.port)
    assert not threads()


async def test_a_coroutine_may_control_it_while_its_loop_waits() -> None:
    with ThreadedSandbox() as sandbox:
        calls = [asyncio.to_thread(status, sandbox) for _ in range(4)]
        running = asyncio.gather(*calls)
        sandbox.seed([(1, 1, "a")])
        assert await running == [200] * 4
        assert len(sandbox.requests) == 4


def test_many_threads_may_control_it_at_once() -> None:
    with ThreadedSandbox(quota=None) as sandbox, ThreadPoolExecutor(8) as pool:

        def work(number: int) -> int:
            sandbox.seed([(number, 1, "v")])
            sandbox.fail_next("500", operation="delete")
            return len(sandbox.requests)

        assert list(pool.map(work, range(1, 41))) == [0] * 40
        assert sandbox.count() == 40
        assert sandbox.call(lambda inner: inner.faults.scripted) == 40


def test_start_and_end() -> None:
    sandbox = ThreadedSandbox()
    with pytest.raises(RuntimeError, match="not running"):
        sandbox.rows()
    sandbox.close()
    for _ in range(2):
        with sandbox:
            assert status(sandbox) == 200
            with pytest.raises(RuntimeError, match="already"):
                sandbox.start()
            with pytest.raises(OSError, match="in use"):
                ThreadedSandbox(port=sandbox.port).start()
            with pytest.raises(RuntimeError, match="wait for itself"):
                sandbox.call(lambda inner: sandbox.rows())
    sandbox.close()
    assert not threads()
    with pytest.raises(ValueError, match="unknown fault kind"), ThreadedSandbox() as other:
        other.fail_next("503", "nonsense")
    with pytest.raises(ValueError, match="at least one"), ThreadedSandbox() as other:
        other.fail_next()
    assert not threads()
