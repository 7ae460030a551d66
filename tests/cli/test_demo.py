"""`demo`: the whole library against an emulated store."""

from __future__ import annotations

import subprocess
import sys

from tests.cli.tables import TABLE, X_AND_ZBAR


def test_the_demo_is_silent_and_all_is_equal() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-X",
            "dev",
            "-W",
            "error",
            "-m",
            "bc_attrvals",
            "demo",
            "--values",
            "600",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "429s seen: 0" in done.stdout
    assert done.stdout.endswith("Equal, value by value: yes\n")


def test_the_demo_takes_a_file(served, tmp_path, summary) -> None:
    (tmp_path / "in.csv").write_text(TABLE, newline="")
    result = served.run("demo", "--json", "--input", tmp_path / "in.csv", *X_AND_ZBAR)
    found = summary(result)
    assert found["equal"] is True
    assert found["rate_limited"] == 0
    assert found["steps"][0]["values"] == 4
