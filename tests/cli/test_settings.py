"""The settings of every command: options before and after it, the environment, a shared quota."""

from __future__ import annotations

import os
from functools import partial

import pytest
from click.testing import CliRunner

from bc_attrvals.cli.app import cli
from bc_attrvals.core.retry import RetryPolicy
from bc_attrvals.store import Store
from tests.cli.tables import GOOD, write_jobs
from tests.valkey import Valkey


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("BIGCOMMERCE_API_URL", "https://api.bigcommerce.com/stores/abc/v3", "before /stores/"),
        ("BIGCOMMERCE_API_URL", "https://api.bigcommerce.com/stores", "before /stores/"),
        ("BIGCOMMERCE_ACCESS_TOKEN", "abc\n", "a line break or a blank at its start or end"),
        ("BIGCOMMERCE_ACCESS_TOKEN", " abc", "a line break or a blank at its start or end"),
    ],
)
def test_a_bad_variable_is_explained(served, name, value, message) -> None:
    result = CliRunner(env=served.environment | {name: value}).invoke(cli, ["count"])
    assert result.exit_code == 2
    assert message in result.stderr
    assert "abc\n" not in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_proxy_is_used_and_never_shown(serve, served, monkeypatch) -> None:
    secret = "http://user:s3cret@127.0.0.1:1"  # nothing listens there
    args = ["--url", "https://api.bigcommerce.example", "--quiet", "count"]
    monkeypatch.setattr("bc_attrvals.store.Store", partial(Store, retry=RetryPolicy(attempts=1)))
    given = served.run("--proxy", secret, *args)
    monkeypatch.setenv("HTTPS_PROXY", secret)
    from_environment = served.run(*args)
    for result in (given, from_environment):
        assert result.exit_code == 3
        assert "127.0.0.1:1" in result.stderr.replace(" ", "") or "proxy" in result.stderr.lower()
        assert "s3cret" not in result.stderr
    # Loopback is reached without one.
    monkeypatch.setenv("HTTP_PROXY", secret)
    assert served.run("count").exit_code == 0
    assert served.run("--proxy", "socks5://127.0.0.1:1", *args).exit_code == 2


def test_options_count_before_and_after_the_command(served) -> None:
    own = served.environment
    url = own["BIGCOMMERCE_API_URL"]
    for args in (
        ["--url", "http://127.0.0.1:1", "--quiet", "count", "--url", url],
        ["--url", url, "--json", "count", "--store-hash", "sandbox"],
    ):
        assert served.run(*args).exit_code == 0
    assert served.run("count", "--access-token", "wrong").exit_code == 3


def test_commands_share_a_quota_when_told_to(served, tmp_path) -> None:
    from redis import Redis

    with Valkey(password=True) as valkey:
        write_jobs(tmp_path, "")
        result = served.run("upsert", tmp_path / "values.csv", "--shared-quota", valkey.url)
        assert (result.exit_code, served.values()) == (0, {(1, 1): "a", (2, 1): "b"})
        with Redis.from_url(valkey.url) as redis:
            assert redis.keys() == [b"bc_attrvals:{sandbox}"]
        for url, message in (
            (valkey.url.replace("p4ss", "wrong"), "refuses the user or password"),
            (valkey.url.replace("/0", "/99"), "no database of that number"),
            (served.sandbox.url.replace("http", "redis"), "neither Redis nor Valkey"),
        ):
            write_jobs(tmp_path, GOOD.replace("FLEET_CLI_TOKEN", "PATH"))
            for command in (("count",), ("fleet", tmp_path / "jobs.toml")):
                refused = served.run(*command, "--shared-quota", url)
                assert refused.exit_code == 2, refused.stderr
                assert refused.stderr.startswith("Error: url of the shared quota: ")
                assert message in refused.stderr
                assert "wrong" not in refused.stderr
        assert served.run("count", "--shared-quota", "http://:hid@den").exit_code == 2
        # It is for processes that are started, and for no longer.
        assert "BIGCOMMERCE_SHARED_QUOTA" not in os.environ


@pytest.mark.parametrize("options", [(), ("--json",), ("--quiet",)])
def test_a_shared_quota_out_of_reach_is_told_of_on_stderr(served, tmp_path, options) -> None:
    write_jobs(tmp_path, "")
    url = "redis://:hidden@127.0.0.1:9"
    result = served.run("upsert", tmp_path / "values.csv", "--shared-quota", url, *options)
    assert result.exit_code == 0
    assert result.stderr.startswith("Warning: the server of the shared quota is out of reach (Conn")
    assert "going on with 25% of each window" in result.stderr
    assert "Warning" not in result.stdout
    assert "hidden" not in result.stderr + result.stdout
