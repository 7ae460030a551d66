"""Fixtures for the test suites of users of this package; pytest finds them by itself.

`bc_sandbox` is a fresh, empty emulated store for each test, a `ThreadedSandbox`. It serves from a
thread of its own, so sync tests, other HTTP clients and any event loop can use it, and a test that
blocks its loop does not block the store. It has no quota and no latency by default.
`@pytest.mark.bc_sandbox(quota=150, customers={7: "a@x.org"}, attributes={"Tier": "string"})`
gives options of `Sandbox`; `bc_sandbox.define(customers=…, attributes=…)` defines both in the test.
`bc_sandbox.proxy_environment` leads any SDK here through an HTTPS proxy (extra `sandbox`).

`bc_store` is a `Store` open on it, for async tests and async fixtures, under pytest-asyncio (0.24
and up; strict or auto mode, any loop scope) or anyio's plugin. A Store belongs to one event loop,
so it is opened in the loop of the test, by the plugin that runs the test. Retries wait
milliseconds by default. `@pytest.mark.bc_store(retry=…)` gives options of `Store`.

pytest loads this module in every project where the package is installed. So it imports nothing of
the package, nor aiohttp, before a fixture is used.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import suppress
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from bc_attrvals.sandbox.threaded_sandbox import ThreadedSandbox
    from bc_attrvals.store import Store

_LOOP_SCOPES: Final = ("function", "class", "module", "package", "session")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks, and the fixtures for pytest-asyncio if it is there."""
    config.addinivalue_line(
        "markers", "bc_sandbox(**options): options of the Sandbox that bc_sandbox serves"
    )
    config.addinivalue_line(
        "markers", "bc_store(**options): options of the Store that bc_store opens"
    )
    if _has_pytest_asyncio(config):
        # Before 0.24 a fixture has no loop scope: there `bc_store` says so, and all else works.
        with suppress(TypeError):
            config.pluginmanager.register(_asyncio_fixtures(), "bc_attrvals_asyncio")


def _has_pytest_asyncio(config: pytest.Config) -> bool:
    # Under any name: found by itself, or given with -p.
    module = sys.modules.get("pytest_asyncio.plugin")
    return module is not None and config.pluginmanager.is_registered(module)


@pytest.fixture
def bc_sandbox(request: pytest.FixtureRequest) -> Iterator[ThreadedSandbox]:
    """Serve an emulated store of the test's own, empty and healthy."""
    from bc_attrvals.sandbox.threaded_sandbox import ThreadedSandbox

    with ThreadedSandbox(**{"quota": None, **_options(request, "bc_sandbox")}) as sandbox:
        yield sandbox


@pytest.fixture
def bc_store(request: pytest.FixtureRequest, bc_sandbox: ThreadedSandbox) -> Store:
    """Open a Store on `bc_sandbox`, in the event loop of the test."""
    del bc_sandbox  # requested, so that it outlives the Store
    store: Store = request.getfixturevalue(_fixture_for(request))
    return store


def _fixture_for(request: pytest.FixtureRequest) -> str:
    """Return the fixture that opens a Store in the loop in which the test will run."""
    node: pytest.Item = request.node
    mark = node.get_closest_marker("asyncio")
    # In auto mode pytest-asyncio marks the tests that it runs.
    if mark is not None and _has_pytest_asyncio(request.config):
        if not request.config.pluginmanager.hasplugin("bc_attrvals_asyncio"):
            pytest.fail("bc_store needs pytest-asyncio 0.24 or newer", pytrace=False)
        if "anyio_backend" in request.fixturenames:
            pytest.fail(
                "pytest-asyncio runs this test and anyio its async fixtures, in another loop: "
                "leave @pytest.mark.anyio out, or set asyncio_mode = strict",
                pytrace=False,
            )
        scope = mark.kwargs.get("loop_scope") or mark.kwargs.get("scope")
        if scope is None:
            scope = _default_loop_scope(request.config)
        return f"_bc_store_asyncio_{scope or 'function'}"
    if "anyio_backend" in request.fixturenames:
        backend = request.getfixturevalue("anyio_backend_name")
        if backend != "asyncio":
            pytest.fail(
                f"bc_store needs asyncio, and this test runs on {backend}: let the fixture "
                "anyio_backend return 'asyncio'",
                pytrace=False,
            )
        return "_bc_store_anyio"
    pytest.fail(
        "bc_store is for async tests that pytest-asyncio or anyio's plugin runs "
        "(@pytest.mark.asyncio or @pytest.mark.anyio); a sync test may use bc_sandbox",
        pytrace=False,
    )


def _default_loop_scope(config: pytest.Config) -> str:
    try:
        return str(config.getini("asyncio_default_test_loop_scope"))
    except (KeyError, ValueError):  # an option since pytest-asyncio 0.26
        return ""


@pytest.fixture
async def _bc_store_anyio(
    request: pytest.FixtureRequest, bc_sandbox: ThreadedSandbox, anyio_backend: object
) -> AsyncGenerator[Store]:
    del anyio_backend
    async with _make_store(request, bc_sandbox) as store:
        yield store


def _asyncio_fixtures() -> object:
    """Return a plugin with one fixture for each scope that a loop of pytest-asyncio may have."""
    import pytest_asyncio

    def fixture_of(loop_scope: Any) -> Any:  # noqa: ANN401 - pytest's own types
        @pytest_asyncio.fixture(loop_scope=loop_scope, name=f"_bc_store_asyncio_{loop_scope}")
        async def opened(
            request: pytest.FixtureRequest, bc_sandbox: ThreadedSandbox
        ) -> AsyncGenerator[Store]:
            async with _make_store(request, bc_sandbox) as store:
                yield store

        return opened

    fixtures = {f"fixture_{scope}": fixture_of(scope) for scope in _LOOP_SCOPES}
    # A module, because pytest reads the attributes of another object's class.
    plugin = ModuleType("bc_attrvals_asyncio")
    vars(plugin).update(fixtures)
    return plugin


def _make_store(request: pytest.FixtureRequest, sandbox: ThreadedSandbox) -> Store:
    from bc_attrvals.core.retry import RetryPolicy
    from bc_attrvals.store import Store

    options: dict[str, Any] = {
        "base_url": sandbox.url,
        "retry": RetryPolicy(base_s=0.005, cap_s=0.05),
        **_options(request, "bc_store"),
    }
    return Store(sandbox.store_hash, sandbox.access_token, **options)


def _options(request: pytest.FixtureRequest, name: str) -> dict[str, Any]:
    """Return the options of all marks of this name; those nearest to the test win."""
    options: dict[str, Any] = {}
    for mark in request.node.iter_markers(name):
        if mark.args:
            pytest.fail(f"@pytest.mark.{name} takes options by name alone", pytrace=False)
        options = {**mark.kwargs, **options}
    return options
