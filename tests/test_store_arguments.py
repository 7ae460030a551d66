"""Arguments of a Store: refused by name before anything is sent, and the token never shown."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import aiohttp
import pytest

from bc_attrvals import InvalidInputError, Limits, Store
from bc_attrvals.sandbox import Sandbox
from tests.conftest import QUICK

TOKEN = "t0ken-nobody-may-see"


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"store_hash": ""}, "store_hash"),
        ({"store_hash": "a/b"}, "store_hash"),
        ({"store_hash": ".."}, "store_hash"),
        ({"store_hash": "a?b"}, "store_hash"),
        ({"store_hash": "abc\n"}, "store_hash"),
        ({"store_hash": "a" * 101}, "store_hash"),
        ({"store_hash": None}, "store_hash"),
        ({"access_token": ""}, "access_token"),
        ({"access_token": f"{TOKEN}\r\nX-Evil: 1"}, "access_token"),
        ({"access_token": f"{TOKEN} "}, "access_token"),
        ({"access_token": f"{TOKEN}\N{EURO SIGN}"}, "access_token"),
        ({"access_token": TOKEN * 100}, "access_token"),
        ({"access_token": TOKEN.encode()}, "access_token"),
        ({"access_token": None}, "access_token"),
        ({"user_agent": ""}, "user_agent"),
        ({"user_agent": "shop\r\nX-Evil: 1"}, "user_agent"),
        ({"user_agent": "Gesch\N{LATIN SMALL LETTER A WITH DIAERESIS}ft"}, "user_agent"),
        ({"user_agent": "x" * 301}, "user_agent"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": -1.0}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"timeout": float("inf")}, "timeout"),
        ({"timeout": True}, "timeout"),
        ({"timeout": "30"}, "timeout"),
        ({"base_url": ""}, "base_url"),
        ({"base_url": "api.bigcommerce.com"}, "base_url"),
        ({"base_url": "ftp://api.bigcommerce.com"}, "base_url"),
        ({"base_url": "https://"}, "base_url"),
        ({"base_url": "https://host:99999"}, "base_url"),
        ({"base_url": "https://[::1"}, "base_url"),
        ({"base_url": f"https://user:{TOKEN}@host"}, "base_url"),
        ({"base_url": f"https://host/?token={TOKEN}"}, "base_url"),
        ({"base_url": "https://host/#part"}, "base_url"),
        ({"base_url": TOKEN}, "base_url"),
        ({"base_url": None}, "base_url"),
        ({"base_url": b"https://host"}, "base_url"),
        ({"limits": 5}, "limits"),
        ({"limits": None}, "limits"),
        ({"retry": 5}, "retry"),
        ({"session": 5}, "session"),
        ({"trace_configs": 5}, "trace_configs"),
        ({"trace_configs": [5]}, "trace_configs"),
    ],
    ids=str,
)
def test_a_bad_argument_is_refused_by_name_and_not_repeated(
    options: Mapping[str, Any], field: str
) -> None:
    arguments = {"store_hash": "hash", "access_token": TOKEN, **options}
    with pytest.raises(InvalidInputError) as caught:
        Store(**arguments)
    assert caught.value.field == field
    assert TOKEN not in str(caught.value) + repr(caught.value)
    assert caught.value.__cause__ is None
    if field == "access_token":
        assert "X-Evil" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://api.bigcommerce.com",
        "http://10.0.0.7",
        "http://0.0.0.0",
        "http://127.0.0.1.example.com",
        "http://localhost.example.com",
        "http://2130706433",
        "http://[2001:db8::1]:80",
        "http://[fe80::1]",
        "HTTP://api.bigcommerce.com",
    ],
)
def test_http_is_refused_but_to_loopback(url: str) -> None:
    with pytest.raises(InvalidInputError, match="https") as caught:
        Store("hash", TOKEN, base_url=url)
    assert caught.value.field == "base_url"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080",
        "http://127.8.9.1",
        "http://localhost:1/proxy/",
        "http://LOCALHOST",
        "http://[::1]:8080",
        "https://api.example.com/gateway",
    ],
)
def test_https_and_loopback_are_taken(url: str) -> None:
    store = Store("hash", TOKEN, base_url=url)
    assert TOKEN not in repr(store)
    assert "not entered" in repr(store)


async def test_a_path_in_the_base_url_is_kept() -> None:
    async with Sandbox(quota=None) as sandbox:
        store = Store("sandbox", "x", base_url=f"{sandbox.url}/gateway/", retry=QUICK)
        async with store:
            with pytest.raises(Exception, match="404"):
                await store.attribute_values.get_page()
        assert sandbox.requests[0].path == "/gateway/stores/sandbox/v3/customers/attribute-values"


def test_traces_go_with_a_session_of_our_own() -> None:
    async def main() -> None:
        async with aiohttp.ClientSession() as session:
            with pytest.raises(InvalidInputError) as caught:
                Store("hash", TOKEN, session=session, trace_configs=[aiohttp.TraceConfig()])
            assert caught.value.field == "trace_configs"

    asyncio.run(main())


def test_from_env_reads_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("BIGCOMMERCE_STORE_HASH", "BIGCOMMERCE_ACCESS_TOKEN", "BIGCOMMERCE_API_URL")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    for name, value in zip(names[:2], ("hash9", TOKEN), strict=True):
        with pytest.raises(InvalidInputError) as caught:
            Store.from_env()
        assert caught.value.field == name
        monkeypatch.setenv(name, value)
    assert repr(Store.from_env()) == "<Store 'hash9' at https://api.bigcommerce.com, not entered>"
    monkeypatch.setenv("BIGCOMMERCE_API_URL", "http://127.0.0.1:99/x/")
    assert "http://127.0.0.1:99/x," in repr(Store.from_env(timeout=3.0, limits=Limits(reads=1)))
    monkeypatch.setenv("BIGCOMMERCE_API_URL", "")
    assert "https://api.bigcommerce.com," in repr(Store.from_env())
    monkeypatch.setenv("BIGCOMMERCE_ACCESS_TOKEN", f"{TOKEN}\n")
    with pytest.raises(InvalidInputError) as bad:
        Store.from_env()
    assert TOKEN not in str(bad.value)


def test_a_quota_without_a_method_is_named() -> None:
    class Partial:
        async def open(self, store_hash: str, limits: Limits) -> None: ...

    with pytest.raises(
        InvalidInputError, match="Partial without acquire, release, close"
    ) as caught:
        Store("abc", "token", quota=Partial())  # type: ignore[arg-type]
    assert caught.value.field == "quota"
