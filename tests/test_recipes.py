"""The recipes run: five nights of the nightly script, the Celery task, the FastAPI service."""

from __future__ import annotations

import asyncio
import configparser
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from bc_attrvals.sandbox import Sandbox, ThreadedSandbox

ROOT = Path(__file__).parents[1]
RECIPES = (ROOT / "bc_attrvals" / "RECIPES.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", RECIPES, re.DOTALL)


def code_of(block: str) -> int:
    """Return how many lines it has, without imports, comments and empty ones."""
    no_code = re.compile(r"\s*$|#|import |from ")
    return sum(no_code.match(line) is None for line in block.splitlines())


class Nights:
    """The nightly script in a folder of its own, with a `sleep` that takes no time."""

    def __init__(self, folder: Path, sandbox: ThreadedSandbox) -> None:
        self.folder = folder
        self.sandbox = sandbox
        self._script = folder / "night"
        (text,) = blocks("sh")
        self._write(self._script, text.replace("/srv/crm", str(folder)))
        (folder / "bin").mkdir()
        self._write(folder / "bin" / "sleep", '#!/bin/sh\necho "$1" >> slept\n')
        command = f'#!/bin/sh\necho $$ > pid\nexec "{sys.executable}" -m bc_attrvals "$@"\n'
        self._write(folder / "bin" / "bc-attrvals", command)

    @staticmethod
    def _write(path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o755)

    def start(self, file: dict[int, str]) -> subprocess.Popen[bytes]:
        rows = (f"{customer},1,{value}\n" for customer, value in file.items())
        text = "customer_id,attribute_id,value\n" + "".join(rows)
        (self.folder / "crm.csv").write_text(text)
        return subprocess.Popen(
            [self._script],
            env={
                **os.environ,
                "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT),
                "BIGCOMMERCE_API_URL": self.sandbox.url,
                "BIGCOMMERCE_STORE_HASH": self.sandbox.store_hash,
                "BIGCOMMERCE_ACCESS_TOKEN": self.sandbox.access_token,
            },
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def wait_for_puts(self, count: int) -> None:
        """Wait until a night has written so much, and has more to write."""
        before = self.sandbox.calls["upsert"]
        end = time.monotonic() + 20
        while self.sandbox.calls["upsert"] < before + count:
            assert time.monotonic() < end
            time.sleep(0.002)

    def held(self) -> dict[int, str]:
        values = self.sandbox.values()
        return {customer: value for (customer, one), value in values.items() if one == 1}


def tomorrow(file: dict[int, str], random: Random) -> dict[int, str]:
    kept = {customer: value for customer, value in file.items() if random.random() > 0.05}
    for _ in range(120):
        kept[random.randrange(1, 400)] = f"v{random.randrange(1_000)}"
    return kept


def end(job: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    _, stderr = job.communicate(timeout=60)
    return job.returncode, stderr


@pytest.mark.skipif(sys.platform == "win32", reason="a script for sh")
def test_after_each_night_the_store_is_the_file(tmp_path: Path) -> None:
    random = Random(3)
    file = {customer: f"v{customer}" for customer in range(1, 300)}
    with ThreadedSandbox(quota=None) as sandbox:
        nights = Nights(tmp_path, sandbox)
        sandbox.seed([(5, 2, "another attribute")])
        for number in range(1, 6):
            sandbox.latency_ms = 15 if number in {2, 4} else 0
            job = nights.start(file)
            if number == 2:
                # For lack of memory, say: the night goes on.
                nights.wait_for_puts(4)
                os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
            elif number == 4:
                # The machine goes down: the next night begins anew, with another file.
                nights.wait_for_puts(4)
                os.killpg(job.pid, signal.SIGKILL)
                assert end(job)[0] == -signal.SIGKILL
                assert nights.held() != file
                file = tomorrow(file, random)
                continue
            status, stderr = end(job)
            assert status == 0, stderr
            assert nights.held() == file
            assert sandbox.values()[5, 2] == "another attribute"
            file = tomorrow(file, random)
            # By day others write.
            some = random.choice(list(file))
            sandbox.seed([(some, 1, "drift"), (400 + number, 1, "foreign")])
        assert (tmp_path / "slept").read_text().split() == ["60"]


def test_the_nightly_recipes_are_short_and_belong_together() -> None:
    (script,) = blocks("sh")
    assert code_of(script) <= 10
    (line,) = blocks("crontab")
    assert re.fullmatch(r"\d+ \d+ \* \* \* /srv/crm/night\n", line)
    service, timer = blocks("ini")
    assert code_of(service) + code_of(timer) <= 10
    units = []
    for unit in (service, timer):
        parser = configparser.ConfigParser(interpolation=None)
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read_string(unit)
        units.append(parser)
    assert units[0]["Service"]["ExecStart"] == "/srv/crm/night"
    assert "# /srv/crm/night" in script
    assert units[1]["Timer"]["OnCalendar"].startswith("*-*-* 02:15")


@pytest.fixture
def block_of() -> Callable[[str], dict[str, Any]]:
    def run(module: str) -> dict[str, Any]:
        pytest.importorskip(module, reason="needs bc_attrvals[dev]")
        (block,) = [one for one in blocks("python") if f"from {module} import" in one]
        assert code_of(block) <= 10
        namespace: dict[str, Any] = {"__name__": "recipe"}
        exec(compile(block, "RECIPES.md", "exec"), namespace)  # the recipe itself
        return namespace

    return run


@pytest.fixture
async def sandbox(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sandbox]:
    async with Sandbox(quota=None) as sandbox:
        monkeypatch.setenv("BIGCOMMERCE_STORE_HASH", sandbox.store_hash)
        monkeypatch.setenv("BIGCOMMERCE_ACCESS_TOKEN", sandbox.access_token)
        monkeypatch.setenv("BIGCOMMERCE_API_URL", sandbox.url)
        yield sandbox


async def test_the_celery_task_stores_and_reports(
    sandbox: Sandbox, block_of: Callable[[str], dict[str, Any]]
) -> None:
    recipe = block_of("celery")
    recipe["app"].conf.update(task_always_eager=True, task_eager_propagates=True)
    sandbox.faults.script(["drop_before"], "upsert")
    task = recipe["store_tiers"]
    # A worker has no event loop of its own, and the sandbox serves in this one.
    result = await asyncio.to_thread(task.delay, {str(number): "gold" for number in range(1, 25)})
    assert result.get()["stored"] == 24
    assert len(await sandbox.values()) == 24


async def test_requests_to_the_fastapi_service_share_calls(
    sandbox: Sandbox, block_of: Callable[[str], dict[str, Any]]
) -> None:
    app = block_of("fastapi")["app"]
    sandbox.latency_ms = 40
    sandbox.reject_customers([7])

    async def put(customer: int) -> dict[str, Any]:
        """Make a request as a server of ASGI does."""
        answer: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            answer.append(message)

        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "PUT",
            "path": f"/customers/{customer}/tier",
            "query_string": b"tier=gold",
            "headers": [],
        }
        await app(scope, receive, send)
        assert answer[0]["status"] == 200
        report: dict[str, Any] = json.loads(b"".join(one.get("body", b"") for one in answer))
        return report

    async with app.router.lifespan_context(app):
        reports = await asyncio.gather(*(put(number) for number in range(1, 31)))
    assert [report["stored"] for report in reports] == [1] * 6 + [0] + [1] * 23
    assert reports[6]["failures"][0]["item"]["customer_id"] == 7
    assert sandbox.calls["upsert"] <= 8
