"""The `sandbox` command: what it prints, and how it ends."""

from __future__ import annotations

import json
import signal
import ssl
import sys
import urllib.request
from contextlib import suppress

import pytest

from bc_attrvals.cli.commands import sandbox as command
from tests.cli.tables import posix


def test_help_says_all_kinds_and_fields_of_faults(served) -> None:
    shown = served.run("sandbox", "--help").stdout
    for word in [kind.value for kind in command.FaultKind]:
        assert word in shown
    for field in ("operation=", "times=", "after=", "delay_s=", "retry_after_s=", "applied="):
        assert field in shown
    assert max(map(len, shown.splitlines())) <= 100


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_json_prints_the_connection_in_a_line_and_ctrl_c_ends_it(serve) -> None:
    with serve() as other:
        process = other.start("sandbox", "--json", "--plan", "pro", "--seed-values", "8")
        assert process.stdout is not None
        shown = json.loads(process.stdout.readline())
        assert shown["page"] == shown["url"] + "/"
        assert shown["BIGCOMMERCE_API_URL"] == shown["url"]
        assert (shown["ca_file"], shown["proxy_url"]) == (None, None)
        with urllib.request.urlopen(shown["control"] + "/state", timeout=30) as answer:
            state = json.load(answer)
        assert (state["rows"], state["quota"]["quota"]) == (8, 450)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
        assert (process.returncode, stdout) == (0, b"")
        assert f"In the browser: {shown['page']}\n".encode() in stderr
        assert shown["access_token"].encode() not in stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_https_and_proxy_are_printed_for_other_programs(serve, tmp_path) -> None:
    pytest.importorskip("trustme", reason="the extra sandbox is not installed")
    file = tmp_path / "ca.pem"
    with serve() as other:
        process = other.start("sandbox", "--json", "--https", "--proxy", "--ca-file", file)
        assert process.stdout is not None
        shown = json.loads(process.stdout.readline())
        assert shown["ca_file"] == shown["SSL_CERT_FILE"] == str(file)
        assert shown["proxy_url"] == shown["HTTPS_PROXY"]
        assert shown["url"].startswith("https://127.0.0.1:")
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({"https": shown["proxy_url"]}),
            urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=file)),
        )
        url = f"https://api.bigcommerce.com/stores/{shown['store_hash']}/v3/customers"
        request = urllib.request.Request(url, headers={"X-Auth-Token": shown["access_token"]})
        with opener.open(request, timeout=30) as answer:
            assert json.load(answer)["data"] == []
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert process.returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_ends_it_while_it_still_makes_its_values(serve, tmp_path, until) -> None:
    database = tmp_path / "rows.db"

    def is_large() -> bool:
        # SQLite removes its files when it has no use for them.
        with suppress(FileNotFoundError):
            return sum(one.stat().st_size for one in tmp_path.iterdir()) > 1_000_000
        return False

    with serve() as other:
        process = other.start("sandbox", "--seed-values", "10000000", "--database", database)
        # Values are coming in: they outgrow SQLite's cache into the WAL, or it is big already.
        until(is_large, 60)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
        assert (process.returncode, stdout) == (0, b""), stderr
        assert b"Stopped before it served." in stderr


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_sandbox_serves_until_it_is_stopped(serve, until, tmp_path, number) -> None:
    with serve() as other:
        process = other.start(
            *("sandbox", "--quota", "none", "--seed-values", "30", "--latency-ms", "1"),
            *("--database", tmp_path / "rows.sqlite", "--fault", "503=0"),
        )
        assert process.stdout is not None
        lines = [process.stdout.readline().decode() for _ in range(3)]
        own = dict(line.removeprefix("export ").rstrip().split("=", 1) for line in lines)
        args = ["--url", own["BIGCOMMERCE_API_URL"]]
        args += ["--access-token", own["BIGCOMMERCE_ACCESS_TOKEN"]]
        assert other.run("count", *args).stdout == "30\n"
        process.send_signal(number)
        _, stderr = process.communicate(timeout=30)
        assert process.returncode == 0, stderr
        assert b"Stopped after 1 call" in stderr


@posix
def test_a_taken_port_exits_2(serve) -> None:
    with serve() as served:
        result = served.run("sandbox", "--port", served.sandbox.port)
        assert result.exit_code == 2
        assert result.stderr.count("\n") == 1
