"""The arguments of a `RedisQuota`, the address of its server first."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path
from typing import Any

import pytest

from bc_attrvals.errors import InvalidInputError
from tests.probes import until
from tests.shared_quota.quotas import BULK, WRITE, Watched, assert_hidden, watching
from tests.valkey import Valkey

from bc_attrvals.shared_quota import RedisQuota  # isort: skip - skipped where redis is missing

pytestmark = pytest.mark.usefixtures("no_task_left")


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hidden@[bad",
        "redis://:hid/hidden@localhost",
        "redis://:12/hidden@localhost",
        "redis://:12#hidden@localhost",
        "redis://:x@localhost:hidden",
        "redis://:hidden@localhost:99999",
        "redis://:hidden@localhost:0",
        "redis://:hidden@localhost/abc",
        "redis://:hidden@localhost/-1",
        "redis://:hidden@localhost/1/2",
        "redis://:hidden@localhost?db=x",
        "redis://:hidden@localhost?foo=1",
        "redis://:hidden@localhost?ssl_cert_reqs=none",
        "redis://:hidden@localhost?socket_timeout=0.001",
        "redis://:hidden@localhost?decode_responses=True",
        "redis://:hidden@localhost?max_connections=1",
        "rediss://:hidden@localhost?ssl_nonsense=1",
        "redis://:hidden\ud800@localhost",
        "redis://:hidden@%00",
        "redis://:hidden@a b",
        "redis://:hidden@" + "a" * 80,
        "redis://:hidden@" + "a." * 300,
        "unix://:hidden@",
        "unix:///tmp/%00hidden",
        ":hidden@localhost",
        "http://:hidden@localhost",
        "",
        None,
        b"redis://:hidden@localhost",
    ],
)
def test_an_address_that_cannot_be_is_refused_and_not_quoted(
    url: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(InvalidInputError, match="url of the shared quota") as refused:
        RedisQuota(url)
    assert refused.value.field == "url"
    assert_hidden(refused.value, caplog)
    made = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(refused.tb)]
    # A reporter of crashes shows what stands in frames.
    assert not any("hidden" in repr(one) for one in made)
    assert repr(RedisQuota.__new__(RedisQuota)) == "<RedisQuota not made>"
    ours = [
        frame.f_locals
        for frame, _ in traceback.walk_tb(refused.tb)
        if "bc_attrvals/shared_quota" in frame.f_code.co_filename
    ]
    assert ours
    assert not any(
        "hidden" in repr(value)
        for names in ours
        for value in names.values()
        if value is not names.get("self")
    )


async def test_a_server_on_a_socket_of_the_file_system(tmp_path: Path) -> None:
    path = tmp_path / "v.sock"
    with Valkey(socket_path=path) as own_valkey:
        one = Watched(f"unix://{path}")
        async with watching(one):
            one.quota.release(await one.quota.acquire(WRITE, BULK), {})
            assert not one.events
            own_valkey.stop()
            await until(lambda: one.lost)


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("url", {"url": "http://localhost"}),
        ("url", {"url": "redis://:hidden@localhost:port/0"}),
        ("url", {"url": 5}),
        ("namespace", {"namespace": "a{b}"}),
        ("namespace", {"namespace": ""}),
        ("lease_s", {"lease_s": 0}),
        ("timeout_s", {"timeout_s": True}),
        ("fallback_share", {"fallback_share": 1.5}),
    ],
)
def test_arguments_that_cannot_be_are_refused(field: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError) as refused:
        RedisQuota(**{"url": "redis://localhost", **arguments})
    assert refused.value.field == field
    assert "hidden" not in str(refused.value)
