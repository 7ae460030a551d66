"""How a job ends: one line, and the exit status."""

from __future__ import annotations

import pytest


def test_a_wrong_token_exits_3_in_one_line(served, summary) -> None:
    result = served.run("--access-token", "wrong-token", "--verbose", "count", "--json")
    assert result.exit_code == 3
    assert "401" in summary(result)["error"]
    assert "wrong-token" not in result.stdout + result.stderr
    quiet = served.run("--access-token", "wrong-token", "count")
    assert quiet.stderr.count("\n") == 1


@pytest.mark.usefixtures("one_try")
@pytest.mark.parametrize("command", ["count", "export", "upsert", "delete"])
def test_an_unreachable_service_exits_3(served, tmp_path, command) -> None:
    values = tmp_path / "values.csv"
    values.write_text(
        "customer_id,attribute_id,value\n" + "".join(f"{n},1,v\n" for n in range(1, 900))
    )
    failed = tmp_path / "failed.csv"
    args = {"upsert": [values, "--failures", failed], "delete": ["--everything", "--yes"]}
    result = served.run("--url", "http://127.0.0.1:1", command, *args.get(command, []))
    assert result.exit_code == 3
    assert "Traceback" not in result.stderr
    if command == "upsert":
        assert served.run("upsert", failed).exit_code == 0
        assert len(served.values()) == 899
