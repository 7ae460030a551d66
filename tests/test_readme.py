"""What the README shows holds: its example runs, its commands and errors exist."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from aiohttp.test_utils import TestClient, TestServer

import bc_attrvals
from bc_attrvals.cli.app import cli
from bc_attrvals.sandbox import Sandbox
from tests.valkey import Valkey

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON_BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def section(heading: str) -> str:
    return README.split(f"\n## {heading}\n")[1].split("\n## ")[0]


async def test_the_first_example_runs(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    await sandbox.define(
        customers={1: "ann@example.org", 2: "bob@example.org"},
        attributes={"Loyalty tier": "string"},
    )
    # The example starts a loop of its own, and the sandbox serves in this one.
    await asyncio.to_thread(exec, compile(PYTHON_BLOCKS[0], "README.md", "exec"), {})
    assert await sandbox.values() == {(1, 1): "gold", (2, 1): "silver"}
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "2 stored in 3 calls"
    assert [line.split()[:2] for line in out[1:]] == [["1", "gold"], ["2", "silver"]]


@pytest.fixture
async def sandbox(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sandbox]:
    async with Sandbox(quota=None) as sandbox:
        monkeypatch.setenv("BIGCOMMERCE_STORE_HASH", sandbox.store_hash)
        monkeypatch.setenv("BIGCOMMERCE_ACCESS_TOKEN", sandbox.access_token)
        monkeypatch.setenv("BIGCOMMERCE_API_URL", sandbox.url)
        yield sandbox


def blocks(heading: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", section(heading), re.DOTALL)


async def run(block: str, **names: object) -> dict[str, Any]:
    """Run an example as the body of a coroutine; return its names."""
    body = "".join(f"    {line}\n" for line in block.splitlines())
    code = f"async def example():\n{body}    return locals()\n"
    namespace = {name: getattr(bc_attrvals, name) for name in bc_attrvals.__all__} | names
    exec(compile(code, "README.md", "exec"), namespace)
    found: dict[str, Any] = await namespace["example"]()  # type: ignore[operator]
    return found


async def test_the_examples_of_reading_run(sandbox: Sandbox) -> None:
    await sandbox.seed((customer, 1, f"v{customer}") for customer in range(1, 601))
    async with bc_attrvals.Store.from_env() as store:
        found = await run(blocks("Read values")[0], values=store.attribute_values)
    assert found["total"] == 600
    assert isinstance(found["value"], bc_attrvals.AttributeValue)


async def test_rows_become_a_table_and_items_again(sandbox: Sandbox) -> None:
    pytest.importorskip("pyarrow", reason="needs bc_attrvals[dev]")
    await sandbox.seed([(1, 1, "a"), (2, 1, "b")])
    async with bc_attrvals.Store.from_env() as store:
        page = await store.attribute_values.get_page()
    to_items, to_table, from_rows = re.findall(r"`((?:pd|from|to)\S.*?\))`", section("Read values"))
    names = {"page": page, "pd": SimpleNamespace(DataFrame=list), **vars(bc_attrvals)}
    assert eval(from_rows, names)[0]["attribute_value"] == "a"
    names["frame"] = eval(to_table, names)
    assert list(eval(to_items, names)) == [row.to_upsert() for row in page.data]


async def test_the_examples_of_writing_run(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    await sandbox.seed([(1, 7, "a"), (2, 7, "b"), (3, 8, "c")])
    sandbox.reject_customers([5])
    items = [bc_attrvals.AttributeValueUpsert(one, 1, "v") for one in range(1, 31)]
    async with bc_attrvals.Store.from_env() as store:
        ids = [row.id for row in await sandbox.rows() if row.attribute_id == 8]
        await run(blocks("Write values")[0], values=store.attribute_values, items=items, ids=ids)
    assert {attribute for _, attribute in await sandbox.values()} == {1}
    assert len(await sandbox.values()) == 29
    assert len(capsys.readouterr().out.splitlines()) == 2


async def test_the_examples_of_syncing_run(
    sandbox: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    await sandbox.seed([(1, 1, "old"), (2, 2, "gone"), (3, 9, "kept")])
    desired = [bc_attrvals.AttributeValueUpsert(one, 1, "new") for one in range(1, 31)]
    async with bc_attrvals.Store.from_env() as store:
        await run(blocks("Sync")[0], values=store.attribute_values, desired=desired)
    assert capsys.readouterr().out.splitlines()[-1] == "29 1 1 0"
    assert (tmp_path / "scores.db").exists()
    assert len(await sandbox.values()) == 31


async def test_the_web_app_serves(sandbox: Sandbox) -> None:
    await sandbox.seed([(7, 1, "gold")])
    names: dict[str, Any] = {"__name__": "app"}
    exec(compile(blocks("In a web app")[0], "README.md", "exec"), names)
    async with TestClient(TestServer(names["app"])) as client:
        for customer, tier in ((7, "gold"), (8, None)):
            async with client.get(f"/customers/{customer}/tier") as answer:
                assert await answer.json() == {"tier": tier}


def test_every_example_is_run() -> None:
    """An example added to the README has its test above, and its section here."""
    # That of testing is run as a user's test suite, in test_pytest_plugin.
    run = ["Write values", "Read values", "Sync", "In a web app", "Test your own code"]
    assert PYTHON_BLOCKS[1:] == [block for heading in run for block in blocks(heading)]


def test_the_commands_are_those_there_are() -> None:
    listed = re.findall(r"^\| `([a-z]+)` \|", section("Command line"), re.MULTILINE)
    assert sorted(listed) == cli.list_commands(click.Context(cli))


def test_the_errors_are_those_there_are() -> None:
    names = re.findall(r"`(\w+Error)`", README)
    assert len(names) > 5
    for name in names:
        assert issubclass(getattr(bc_attrvals, name), bc_attrvals.BCAttrValsError)


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    assert len(README.splitlines()) < 200
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("heading", ["Quick start", "Tests"])
def test_both_commands_make_their_own_virtual_environment(heading: str) -> None:
    block = re.search(r"```sh\n(.*?)```", section(heading), re.DOTALL)
    assert block is not None
    assert block[1].startswith("python3 -m venv ")
    assert block[1].count("\n") == 1


async def test_the_examples_of_several_processes_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As they stand, but for where servers and files are."""
    distributed = pytest.importorskip("distributed", reason="needs bc_attrvals[dev]")
    readmes = [ROOT / "bc_attrvals" / name / "README.md" for name in ("shared_quota", "fleet")]
    (quota,), (fleet,) = (
        re.findall(r"```python\n(.*?)```", one.read_text(encoding="utf-8"), re.DOTALL)
        for one in readmes
    )
    for number, name in enumerate(("abc", "def")):
        (tmp_path / f"{name}.csv").write_text(f"customer_id,attribute_id,value\n1,1,{number}\n")
        monkeypatch.setenv(f"TOKEN_{name}", "sandbox-token")
    with Valkey() as valkey:
        quota = quota.replace("redis://localhost:6379/0", valkey.url)
        quota = quota.replace(": ...", ": await store.attribute_values.count()")
        async with (
            Sandbox(quota=None, store_hash="abc") as sandbox,
            distributed.LocalCluster(
                n_workers=1, processes=False, dashboard_address=None, asynchronous=True
            ) as cluster,
        ):
            monkeypatch.setenv("BIGCOMMERCE_STORE_HASH", "abc")
            monkeypatch.setenv("BIGCOMMERCE_ACCESS_TOKEN", sandbox.access_token)
            monkeypatch.setenv("BIGCOMMERCE_API_URL", sandbox.url)
            fleet = fleet.replace("tcp://scheduler:8786", cluster.scheduler_address)
            fleet = fleet.replace("/shared", str(tmp_path))
            fleet = fleet.replace("Job(", f"Job(base_url={sandbox.url!r}, ")
            for block in (quota, fleet):
                names: dict[str, object] = {**vars(bc_attrvals)}
                body = "".join(f"    {line}\n" for line in block.splitlines())
                exec(compile(f"async def example():\n{body}", "README.md", "exec"), names)
                await names["example"]()  # type: ignore[operator]
            assert await sandbox.values() == {(1, 1): "0"}
    shown = capsys.readouterr().out
    assert "abc SyncReport(" in shown
    assert "def 404 " in shown
