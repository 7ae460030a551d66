"""Noise of every kind into all that reads: only errors of ours come out, soon and in little memory.

A short form runs with the suite. `BC_FUZZ=100000 pytest tests/test_fuzz.py -s` is the long one: so
many bodies, each with headers of its own.
"""

# ruff: noqa: PT017
from __future__ import annotations

import os
import random
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from bc_attrvals import DecodeError, JournalError, SyncReport
from bc_attrvals.core.rate_limit import QuotaState, read_quota_headers, read_retry_after_s
from bc_attrvals.core.responses import (
    Response,
    decode_echoes,
    decode_page,
    decode_rows,
    error_from_answer,
    indexes_named,
)
from bc_attrvals.sandbox import Sandbox
from bc_attrvals.tables.files import FileError, open_input
from bc_attrvals.tables.layout import JSON_LINES, PARQUET, Layout
from bc_attrvals.tables.reader import read_ids, read_values
from tests.conftest import make_store
from tests.probes import upserts
from tests.raw_server import page_body, row

COUNT = int(os.environ.get("BC_FUZZ", "1500"))
#: No body of this size takes longer, on a busy machine either.
MOST_S = 2.0
MOST_BYTES = 64 * 2**20

GOOD = page_body([row(n, n) for n in range(1, 4)], total=3, per_page=50, page=1, total_pages=1)
ODD: list[bytes] = [
    b"null", b"true", b"-1", b"1e999", b"-0.0", b"NaN", b"Infinity", b'""', b"[]", b"{}",
    b"9" * 400, b"1" + b"0" * 5_000, b"2147483648", b"9223372036854775808", b"1.0", b"1e2",
    b'"\\ud800"', b'"\\u0000"', b'"\xff"', b'"\xed\xa0\x80"', b'"' + b"x" * 3_000 + b'"',
    b'"2024-13-45T99:99:99Z"', b'"0001-01-01T00:00:00+14:00"', b'"9999-12-31T23:59:59-12:00"',
    b'"2024-05-14T09:34:00"', b'"2024-05-14"', b"1715679240", b"[" * 50 + b"]" * 50,
    b'{"a":' * 50 + b"1" + b"}" * 50,
]  # fmt: skip
HUGE: list[bytes] = [
    b"[" * 1_000_000,
    b'{"data":' * 200_000,
    b'{"data":' + b"9" * 1_000_000 + b"}",
    b'{"data":[{"id":' + b"1" * 1_000_000 + b"}]}",
    b'{"data":[],"meta":{"pagination":{"total":1e' + b"9" * 100_000 + b"}}}",
    b'{"title":"' + b"\\u0000" * 150_000 + b'"}',
    b'{"errors":{' + b",".join(b'"%d.x":"y"' % n for n in range(50_000)) + b"}}",
    b'{"errors":' + b"[" * 400 + b"]" * 400 + b"}",
    b"\xff" * 1_000_000,
    b" " * 1_000_000,
    b'{"data":[' + b"{}," * 200_000 + b"{}]}",
    b'{"data":[' + b'{"id":1},' * 100_000 + b"1]}",
    GOOD[:-1] + b',"x":' + b"[" * 100_000,
    b'"' + b"\\ud83d" * 100_000 + b'"',
]
NAMES = [
    "X-Rate-Limit-Time-Window-Ms",
    "X-Rate-Limit-Time-Reset-Ms",
    "X-Rate-Limit-Requests-Quota",
    "X-Rate-Limit-Requests-Left",
    "X-Retry-After",
    "X-Request-Id",
]
TEXTS = ["", "0", "1", "-1", "30000", "29999", "150", "1e9", "nan", "inf", "-inf", " 7", "7 ", "٣",
    "²", "0x10", "1_000", "9" * 15, "9" * 400, "+5", "1.5", "\udcff", "\x00", "soon"]  # fmt: skip


def odd_body(rng: random.Random) -> bytes:
    """Return a body: a good one that was damaged, made of odd parts, or noise."""
    kind = rng.randrange(5)
    if kind == 0:
        return rng.randbytes(rng.randrange(60))
    if kind == 1:
        body = bytearray(GOOD)
        for _ in range(rng.randint(1, 4)):
            body[rng.randrange(len(body))] = rng.randrange(256)
        return bytes(body)
    if kind == 2:
        begin, end = sorted(rng.sample(range(len(GOOD)), 2))
        return GOOD[:begin] + rng.choice(ODD) + GOOD[end:]
    names = ["id", "customer_id", "attribute_id", "attribute_value", "value", "date_created"]
    rows = []
    for _ in range(rng.randrange(4)):
        # Names may come twice, too.
        fields = [
            b'"%s":%s' % (rng.choice(names).encode(), rng.choice([*ODD, b"1", b'"v"', b"7"]))
            for _ in range(rng.randint(4, 9))
        ]
        rows.append(b"{" + b",".join(fields) + b"}")
    counts = b",".join(
        b'"%s":%s' % (name, rng.choice([*ODD, b"1", b"5", b"0"]))
        for name in (b"total", b"per_page", b"current_page", b"total_pages", b"count")
    )
    body = b'{"data":[%s],"meta":{"pagination":{%s}}}' % (b",".join(rows), counts)
    if kind == 3:
        return body
    return b'{"title":%s,"errors":{"0.x":%s,%s:"y"},"status":%s}' % (
        rng.choice(ODD),
        rng.choice(ODD),
        rng.choice([b'"1.value"', b'"..."', b'"99999999999.x"', b'""']),
        rng.choice(ODD),
    )


def odd_headers(rng: random.Random) -> CIMultiDictProxy[str]:
    found = CIMultiDict[str]()
    for name in NAMES:
        for _ in range(rng.choice([0, 1, 1, 1, 2])):
            text = str(rng.randint(0, 40_000)) if rng.random() < 0.6 else rng.choice(TEXTS)
            found.add(name.lower() if rng.random() < 0.2 else name, text)
    return CIMultiDictProxy(found)


def read_body(body: bytes, status: int) -> None:
    """Read it in every way there is; anything but a `DecodeError` is a fault."""
    for read in (decode_page, decode_rows, decode_echoes):
        try:
            found: Any = read(body)
        except DecodeError as error:
            assert len(str(error)) < 2_000
        else:
            rows = found if isinstance(found, list) else found.data
            assert all(isinstance(one.attribute_value, str) for one in rows)
    error = error_from_answer(status, body, request_id=None, method="PUT", path="/x")
    assert error.status == status
    assert len(str(error)) < 30_000
    assert str(error).isprintable()
    assert all(0 <= index < 10 for index in indexes_named(error.errors, 10))


class Clocked:
    """A quota state that is told whatever was read, at moments that go on."""

    def __init__(self) -> None:
        self.state = QuotaState()
        self.now = 0.0

    def answered(self, headers: CIMultiDictProxy[str], rng: random.Random, status: int) -> None:
        sent_at = self.now
        self.state.take()
        self.now += rng.choice([0.0, 0.01, 1.0, 40.0])
        self.state.answered(sent_at, self.now, read_quota_headers(headers), refused=status == 429)
        left = self.state.available(self.now)
        assert left is None or 0 <= left < 10**9
        snapshot = self.state.snapshot(self.now)
        assert snapshot.resets_in_s is None or 0 <= snapshot.resets_in_s < 2 * 86_402
        opens_at = self.state.opens_at()
        # Whatever was said, there is an end to waiting.
        assert left != 0 or (opens_at is not None and opens_at < self.now + 2 * 86_402)


def test_bodies_and_headers_of_noise_give_errors_of_ours_alone() -> None:
    rng = random.Random(11)
    clocked = Clocked()
    slowest_s = 0.0
    for _ in range(COUNT):
        body, headers = odd_body(rng), odd_headers(rng)
        status = rng.choice([400, 401, 404, 422, 429, 500, 503])
        began_at = time.perf_counter()
        read_body(body, status)
        clocked.answered(headers, rng, status)
        answer = Response(status, headers, body)
        assert answer.request_id is None or answer.request_id.isprintable()
        after_s = read_retry_after_s(answer.headers, rng.random() * 2e9)
        assert after_s is None or 0 <= after_s <= 120
        slowest_s = max(slowest_s, time.perf_counter() - began_at)
    print(f"\n{COUNT} bodies and headers, the slowest in {slowest_s * 1000:.1f} ms")
    assert slowest_s < MOST_S


@pytest.mark.parametrize("body", HUGE, ids=lambda one: repr(one[:24]))
def test_a_flood_is_read_soon_and_in_little_memory(body: bytes) -> None:
    began_at = time.perf_counter()
    read_body(body, 422)
    assert time.perf_counter() - began_at < MOST_S * 5
    if len(body) < 500_000:
        tracemalloc.start()
        try:
            read_body(body, 422)
            assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
        finally:
            tracemalloc.stop()


def test_files_of_noise_give_bad_rows_or_one_error(tmp_path: Path) -> None:
    rng = random.Random(12)
    path = tmp_path / "noise"
    parts = [
        b"customer_id,attribute_id,value\n",
        b"id\n",
        b"1,2,x\n",
        b'"',
        b"\r",
        b"\r\n",
        b",",
        b";",
    ]
    parts += [b"\xff", b"\x00", b'{"customer_id":1,"attribute_id":1,"value":"x"}\n', b"[", b"1\n"]
    parts += [b"\xef\xbb\xbf", b"9" * 5_000, b"\xf0\x9f\x98\x80", b'{"a":' * 2_000, b"\n", b"NaN\n"]
    for _ in range(min(COUNT // 3, 5_000)):
        path.write_bytes(b"".join(rng.choice(parts) for _ in range(rng.randrange(12))))
        with open_input(str(path)) as source:
            for read in (
                lambda: read_values(source, Layout()),
                lambda: read_values(source, Layout(format=JSON_LINES)),
                lambda: read_values(source, Layout(format=PARQUET)),
                lambda: read_ids(source),
            ):
                try:
                    assert sum(1 for _ in read()) < 100
                except FileError as error:
                    assert len(str(error)) < 2_000


async def test_journals_of_noise_are_refused_or_right(tmp_path: Path) -> None:
    """Damaged by bits, bytes and cuts: a `JournalError`, or the same report as before."""
    rng = random.Random(13)
    path = tmp_path / "journal.db"
    async with Sandbox(quota=None) as sandbox, make_store(sandbox) as store:
        report = await store.attribute_values.sync(upserts(60), journal=path)
        whole = path.read_bytes()
        calls = len(sandbox.requests)
        refused = 0
        for _ in range(min(COUNT // 10, 3_000)):
            torn = bytearray(whole)
            kind = rng.randrange(4)
            if kind == 0:
                torn = torn[: rng.randrange(len(torn))]
            elif kind == 1:
                torn = bytearray(rng.randbytes(rng.randrange(1, 5_000)))
            else:
                for _ in range(rng.choice([1, 1, 3, 40])):
                    torn[rng.randrange(len(torn))] ^= 1 << rng.randrange(8)
            path.write_bytes(torn)
            for one in tmp_path.glob("journal.db-*"):  # noqa: ASYNC240
                one.unlink()
            try:
                SyncReport.from_journal(path)
            except JournalError:
                refused += 1
        assert refused
        assert len(sandbox.requests) == calls
        path.write_bytes(whole)
        assert SyncReport.from_journal(path) == report
