"""A sandbox in a thread of its own, and the command line run in this process or in another."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest
from click.testing import CliRunner, Result

from bc_attrvals.core.retry import RetryPolicy
from bc_attrvals.sandbox import Sandbox
from bc_attrvals.store import Store
from tests.cli.tables import KINDS, PEOPLE, START

ROOT = Path(__file__).parents[2]
_NOT_OURS = {"PYTHONUNBUFFERED", "NO_COLOR", "FORCE_COLOR", "COLUMNS"}


class Served:
    """A sandbox that serves from another thread."""

    def __init__(self, **options: Any) -> None:
        self.sandbox = Sandbox(**{"quota": None, "access_token": "s3cret-token", **options})
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        self.do(self.sandbox.start())
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.do(self.sandbox.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def do(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    def values(self) -> dict[tuple[int, int], str]:
        return self.do(self.sandbox.values())

    def seed(self, *rows: tuple[int, int, str]) -> None:
        self.do(self.sandbox.seed(rows))

    @property
    def environment(self) -> dict[str, str]:
        return {
            "BIGCOMMERCE_API_URL": self.sandbox.url,
            "BIGCOMMERCE_STORE_HASH": self.sandbox.store_hash,
            "BIGCOMMERCE_ACCESS_TOKEN": self.sandbox.access_token,
        }

    def run(self, *args: object, input: str | bytes | None = None) -> Result:
        """Run a command in this process."""
        from bc_attrvals.cli.app import cli

        runner = CliRunner(env=self.environment)
        result = runner.invoke(cli, [str(one) for one in args], input=input)
        assert "s3cret-token" not in result.stdout + result.stderr + repr(result.exception)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    def start(
        self, *args: object, variables: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[bytes]:
        """Start a command in a process of its own."""
        inherited = {name: value for name, value in os.environ.items() if name not in _NOT_OURS}
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        return subprocess.Popen(
            [sys.executable, "-X", "dev", "-W", "error", "-m", "bc_attrvals", *map(str, args)],
            env={**inherited, "PYTHONPATH": str(ROOT), **self.environment, **(variables or {})},
            **{**pipes, **options},
        )


@pytest.fixture
def served() -> Iterator[Served]:
    with Served() as one:
        yield one


@pytest.fixture
def serve() -> Callable[..., Served]:
    return Served


@pytest.fixture
def one_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bc_attrvals.store.Store", partial(Store, retry=RetryPolicy(attempts=1)))


@pytest.fixture
def until() -> Callable[..., None]:
    def wait(
        condition: Callable[[], object], timeout_s: float = 15.0, pause_s: float = 0.01
    ) -> None:
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            time.sleep(pause_s)

    return wait


@pytest.fixture
def parse() -> Callable[[str], list[list[str]]]:
    return lambda text: list(csv.reader(io.StringIO(text, newline="")))


@pytest.fixture
def summary() -> Callable[[Result], dict[str, Any]]:
    def read(result: Result) -> dict[str, Any]:
        assert result.stdout.count("\n") == 1
        found: dict[str, Any] = json.loads(result.stdout)
        assert found["exit_status"] == result.exit_code
        return found

    return read


@pytest.fixture
def store(serve: Callable[..., Served]) -> Iterator[Served]:
    """Serve a store whose customers and attributes have names."""
    with serve(customers=PEOPLE, attributes=KINDS) as served:
        yield served


@pytest.fixture
def stored(served: Served) -> Served:
    """Serve a store of 600 values of 300 customers."""
    rows = [(n // 2 + 1, n % 2 + 1, f"v{n}", START + n // 2) for n in range(600)]
    served.do(served.sandbox.seed(rows))
    return served
