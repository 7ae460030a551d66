"""Closed, full and broken standard streams: stdout's errors are named, stderr's end nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bc_attrvals.cli.standard_streams import leave, prepare_streams
from tests.cli.conftest import ROOT, Served

TABLE = "customer_id,attribute_id,value\n1,1,v\n"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no such shell")


def run(served: Served, command: str, redirections: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command by a shell, with these redirections."""
    call = f'exec "$0" -X dev -W error -m bc_attrvals {command} {redirections}'
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **served.environment}
    return subprocess.run(
        ["/bin/sh", "-c", call, sys.executable],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=30,
    )


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "values.csv"
    path.write_text(TABLE)
    return path


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&- >&- <&-"])
def test_a_job_is_done_whatever_becomes_of_stderr(served, table, tmp_path, redirection) -> None:
    if "full" in redirection and not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    done = run(served, f"sync {table} --journal {tmp_path / 'j.db'} --verbose", redirection)
    assert done.returncode == 0
    assert (b"Synced 1 value" in done.stdout) == (" >&-" not in redirection)
    assert served.values() == {(1, 1): "v"}


@pytest.mark.parametrize(
    ("command", "redirection", "status"),
    [
        ("export", ">&-", 2),
        ("upsert {}", ">&-", 0),
        ("count", ">/dev/full", 2),
        ("--completion bash", ">/dev/full", 2),
    ],
)
def test_a_result_that_can_not_be_written_is_an_error(
    served, table, command, redirection, status
) -> None:
    if "full" in redirection and not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    done = run(served, command.format(table), redirection)
    assert done.returncode == status
    errors = done.stderr.decode()
    assert "Traceback" not in errors
    assert ("Error: standard output: " in errors) == (status > 0)
    assert ("Stored 1 value" in errors) == (status == 0)


def test_a_help_page_into_a_broken_pipe_ends_quietly(served) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = served.start("--help", stdout=writing)
    os.close(writing)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (141, b"")


def test_what_stderr_does_not_take_is_discarded(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w", buffering=1) as broken:
        monkeypatch.setattr(sys, "stderr", broken)
        prepare_streams()
        sys.stderr.write("taken\n")
        assert os.read(reading, 99) == b"taken\n"
        os.close(reading)
        for _ in range(2):
            assert sys.stderr.write("lost\n") == 5
            sys.stderr.flush()
        assert sys.stderr.fileno() == writing
        assert not sys.stderr.isatty()


def test_a_stream_that_is_left_takes_all(tmp_path: Path) -> None:
    with (tmp_path / "left").open("w") as stream:
        stream.write("buffered")
        leave(stream)
        stream.write("more")
    assert (tmp_path / "left").read_text() == ""
