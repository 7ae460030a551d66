"""The fixtures in a user's own project: pytest in another process, under each plugin and mode."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

Run = Callable[..., str]
ANYIO = "anyio.pytest_plugin"
BOTH = (ANYIO, "pytest_asyncio.plugin")

ON_ANYIO = """
@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"

pytestmark = pytest.mark.anyio
"""

ASYNC_TESTS = """
import pytest, pytest_asyncio
from bc_attrvals import AttributeValueUpsert

{mark}

@{fixture}
async def filled(bc_store):
    await bc_store.attribute_values.upsert([AttributeValueUpsert(1, 1, "a")])
    return bc_store

async def test_a_store_open_in_the_loop_of_the_test(bc_store, bc_sandbox):
    bc_sandbox.fail_next("503", "drop_after", operation="upsert")
    report = await bc_store.attribute_values.upsert([AttributeValueUpsert(5, 1, "v")])
    assert (report.stored, report.retries) == (1, 2)
    assert bc_sandbox.values() == {{(5, 1): "v"}}
    assert [one.status for one in bc_sandbox.requests] == [503, None, 200]

async def test_each_test_has_its_own(bc_store, bc_sandbox):
    assert bc_sandbox.requests == []
    assert await bc_store.attribute_values.count() == 0

async def test_async_fixtures_may_use_it(filled):
    assert await filled.attribute_values.count() == 1

@pytest.mark.bc_sandbox(quota=7)
@pytest.mark.bc_store(user_agent="mine")
async def test_marks_give_options(bc_store, bc_sandbox):
    await bc_store.attribute_values.count()
    assert bc_sandbox.quota_left == 6
    assert "mine" in bc_sandbox.requests[0].headers["User-Agent"]
"""

SYNC_TESTS = """
import json, urllib.request

def call(bc_sandbox, method, body=None):
    path = f"/stores/{bc_sandbox.store_hash}/v3/customers/attribute-values"
    request = urllib.request.Request(bc_sandbox.url + path, body, method=method)
    request.add_header("X-Auth-Token", bc_sandbox.access_token)
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["data"]

import pytest

def test_customers_and_attributes_in_one_line(bc_sandbox):
    bc_sandbox.define(customers={7: "ann@example.org"}, attributes={"Tier": "string"})
    assert [one.email for one in bc_sandbox.customers()] == ["ann@example.org"]

@pytest.mark.bc_sandbox(customers=["ann@example.org"], attributes={"Tier": "string"})
def test_customers_and_attributes_by_mark(bc_sandbox):
    assert [one.id for one in bc_sandbox.customers()] == [1]
    assert [one.name for one in bc_sandbox.attributes()] == ["Tier"]

def test_any_client_will_do(bc_sandbox):
    bc_sandbox.seed([(1, 1, "a")])
    assert [row["attribute_value"] for row in call(bc_sandbox, "GET")] == ["a"]
    item = {"customer_id": 2, "attribute_id": 1, "value": "b"}
    call(bc_sandbox, "PUT", json.dumps([item]).encode())
    assert [row.value for row in bc_sandbox.rows()] == ["a", "b"]
    assert [one.method for one in bc_sandbox.requests] == ["GET", "PUT"]
"""


@pytest.fixture
def project(tmp_path: Path) -> Run:
    """Run pytest on files in a project elsewhere; returns what it said."""

    def run(*files: str, plugins: tuple[str, ...] = BOTH, ini: str = "", status: int = 0) -> str:
        # Those named and no others: each costs time, and may hide what another one lacks.
        loaded = [f"-p{name}" for name in ("bc_attrvals.pytest_plugin", *plugins)]
        strict = ["--strict-markers", "-W", "error", "-p", "no:cacheprovider"]
        if plugins == BOTH and "fixture_loop_scope" not in ini:
            ini += "\nasyncio_default_fixture_loop_scope = function"
        for number, text in enumerate(files):
            (tmp_path / f"test_{number}.py").write_text(text)
        (tmp_path / "pytest.ini").write_text(f"[pytest]\n{ini}")
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "pytest", *loaded, *strict],
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    return run


def async_tests(mark: str, fixture: str) -> str:
    return ASYNC_TESTS.format(mark=mark, fixture=fixture)


def test_under_pytest_asyncio_in_strict_mode_and_anyio_side_by_side(project: Run) -> None:
    section = README.split("\n## Test your own code\n")[1].split("\n## ")[0]
    example = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert example is not None
    assert example[1].count("def test_") == 1
    said = project(
        async_tests("pytestmark = pytest.mark.asyncio", "pytest_asyncio.fixture"),
        async_tests(
            'pytestmark = pytest.mark.asyncio(loop_scope="module")',
            'pytest_asyncio.fixture(loop_scope="module")',
        ),
        async_tests(ON_ANYIO, "pytest.fixture"),
        example[1],
    )
    assert "13 passed" in said


def test_under_pytest_asyncio_in_auto_mode(project: Run) -> None:
    said = project(
        async_tests("", "pytest.fixture"),
        async_tests(
            'pytestmark = pytest.mark.asyncio(loop_scope="function")',
            'pytest_asyncio.fixture(loop_scope="function")',
        ),
        "import pytest\n" + ON_ANYIO + "\nasync def test_two_plugins_at_once(bc_store): pass\n",
        ini="""asyncio_mode = auto
asyncio_default_test_loop_scope = session
asyncio_default_fixture_loop_scope = session""",
        status=1,
    )
    assert "8 passed, 1 error" in said
    assert "set asyncio_mode = strict" in said


def test_anyio_alone_and_sync_tests_need_no_pytest_asyncio(project: Run) -> None:
    text = async_tests(ON_ANYIO, "pytest.fixture").replace(", pytest_asyncio", "")
    assert "7 passed" in project(text, SYNC_TESTS, plugins=(ANYIO,))


def test_a_test_that_runs_in_no_asyncio_loop_is_told_so(project: Run) -> None:
    text = """
        import pytest
        @pytest.fixture
        def anyio_backend_name(): return "trio"
        def test_sync(bc_store): pass
        @pytest.mark.parametrize("anyio_backend", ["asyncio"])
        def test_other(bc_store, anyio_backend): pass
        @pytest.mark.bc_sandbox(150)
        def test_marks(bc_sandbox): pass
        """
    said = project(textwrap.dedent(text), plugins=(ANYIO,), status=1)
    assert "a sync test may use bc_sandbox" in said
    assert "bc_store needs asyncio, and this test runs on trio" in said
    assert "@pytest.mark.bc_sandbox takes options by name alone" in said
    assert "3 errors" in said


OLD_PLUGIN = """
import pytest_asyncio

fixture = pytest_asyncio.fixture

def without_loop_scope(*args, **options):
    # As pytest-asyncio 0.23: it hands what it does not know to pytest.fixture.
    if "loop_scope" in options:
        raise TypeError("fixture() got an unexpected keyword argument 'loop_scope'")
    return fixture(*args, **options)

pytest_asyncio.fixture = without_loop_scope
"""


def test_beside_an_old_pytest_asyncio_only_the_tests_that_use_bc_store_fail(
    project: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old_plugin.py").write_text(OLD_PLUGIN)
    text = """
        import pytest
        pytestmark = pytest.mark.asyncio
        async def test_no_fixture_of_ours(): pass
        async def test_sandbox(bc_sandbox): assert bc_sandbox.url
        async def test_store(bc_store): pass
        """
    # Before all others, which pytest loads in the order of their options.
    monkeypatch.setenv("PYTEST_PLUGINS", "old_plugin")
    said = project(textwrap.dedent(text), SYNC_TESTS, status=1)
    assert "bc_store needs pytest-asyncio 0.24 or newer" in said
    assert re.search(r"\b[5-9] passed, 1 error", said), said


def test_pytest_starts_without_the_client(project: Run) -> None:
    modules = ("aiohttp", "attrs", "msgspec", "sqlite3", "bc_attrvals.store", "bc_attrvals.sandbox")
    said = project(
        f"import sys\ndef test_it():\n    assert not set({modules}) & set(sys.modules)\n",
        # anyio's plugin imports trio where it is installed, and trio imports attrs.
        plugins=("pytest_asyncio.plugin",),
        ini="asyncio_default_fixture_loop_scope = function",
    )
    assert "1 passed" in said


def test_pytest_finds_the_plugin_by_itself() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found = settings["project"]["entry-points"]["pytest11"]
    assert found == {"bc_attrvals": "bc_attrvals.pytest_plugin"}
    assert not any("pytest" in name for name in settings["project"]["dependencies"])
