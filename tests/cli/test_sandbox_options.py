"""The options of an emulated store: on the line, in a file, and those that are refused."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from bc_attrvals.cli import sandbox_options
from bc_attrvals.cli.commands import sandbox as command
from bc_attrvals.sandbox import Fault, Quirks, Sandbox


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The options of the sandboxes that would be served."""
    options: list[dict[str, Any]] = []

    class Kept(Sandbox):
        def __init__(self, database: str, **given: Any) -> None:
            super().__init__(database, **given)
            options.append({"database": database, **given})

    monkeypatch.setattr(sandbox_options, "Sandbox", Kept)
    monkeypatch.setattr(command, "run", lambda main, grace_s: None)
    return options


@pytest.mark.parametrize(
    ("args", "quota", "window_s"),
    [
        ([], 150, 30),
        (["--plan", "standard"], 150, 30),
        (["--plan", "plus"], 150, 30),
        (["--plan", "PRO"], 450, 30),
        (["--plan", "unlimited"], None, 30),
        (["--plan", "pro", "--window-s", "5"], 450, 5),
        (["--quota", "7"], 7, 30),
        (["--quota", "none"], None, 30),
        (["--quota", "7", "--window-s", "0.5"], 7, 0.5),
    ],
)
def test_a_plan_is_a_quota(served, made, args, quota, window_s) -> None:
    assert served.run("sandbox", *args).exit_code == 0
    assert (made[0]["quota"], made[0]["window_s"]) == (quota, window_s)


def test_faults_are_taken_in_order(served, made) -> None:
    faults = ["503=5%", "429,operation=upsert,times=3", "slow=0.1,delay_s=2"]
    options = [part for fault in faults for part in ("--fault", fault)]
    assert served.run("sandbox", *options, "--latency-ms", "80").exit_code == 0
    assert made[0]["faults"] == [
        Fault("503", probability=0.05),
        Fault("429", operation="upsert", times=3),
        Fault("slow", probability=0.1, delay_s=2),
    ]
    assert made[0]["latency_ms"] == 80


def test_every_option_of_a_store_can_be_given(served, made) -> None:
    args = ["--quirk", "order=shuffled", "--quirk", "omit_links", "--puts-at-once", "none"]
    args += ["--customer", "7=ann@example.org", "--attribute", "a=b=string"]
    args += ["--store-hash", "mine", "--access-token", "t0ken", "--https", "--proxy"]
    args += ["--host", "0.0.0.0", "--allow-remote", "--proxy-port", "5", "--ca-file", "ca.pem"]
    assert served.run("sandbox", *args).exit_code == 0
    options = made[0]
    assert options["quirks"] == Quirks(order="shuffled", omit_links=True)
    assert (options["customers"], options["attributes"]) == (
        {7: "ann@example.org"},
        {"a=b": "string"},
    )
    assert (options["max_concurrent_puts"], options["store_hash"]) == (None, "mine")
    assert (options["https"], options["proxy"], options["host"]) == (True, True, "0.0.0.0")
    assert (options["proxy_port"], options["ca_file"]) == (5, "ca.pem")


CONFIG = """
plan = "pro"
latency_ms = 5
window_s = 2
seed_values = 3
max_concurrent_puts = 2
store_hash = "filed"
faults = ["503=5%", "hang,operation=delete"]
proxy = true
database = ":memory:"

[customers]
7 = "ann@example.org"

[attributes]
"Shoe size" = "number"

[quirks]
order = "id_desc"
omit_links = true
clock_lags_s = [0, 3]
max_limit = 100
"""


def test_a_file_gives_options_and_the_line_goes_before_it(served, made, tmp_path) -> None:
    file = tmp_path / "sandbox.toml"
    file.write_text(CONFIG)
    assert served.run("sandbox", "--config", file).exit_code == 0
    assert (
        served.run("sandbox", "--config", file, "--quota", "9", "--store-hash", "x").exit_code == 0
    )
    assert served.run("sandbox", "--config", file, "--quota", "none").exit_code == 0
    filed, line, unlimited = made
    assert unlimited["quota"] is None
    assert (filed["quota"], filed["window_s"], filed["latency_ms"]) == (450, 2, 5)
    assert (filed["max_concurrent_puts"], filed["proxy"]) == (2, True)
    assert filed["faults"] == [Fault("503", probability=0.05), Fault("hang", operation="delete")]
    assert (filed["customers"], filed["attributes"]) == (
        {7: "ann@example.org"},
        {"Shoe size": "number"},
    )
    assert filed["quirks"] == Quirks(
        order="id_desc", omit_links=True, clock_lags_s=(0, 3), max_limit=100
    )
    assert (line["quota"], line["store_hash"], line["window_s"]) == (9, "x", 2)


def test_quirks_come_from_a_probe_and_the_line_goes_before_it(served, made, tmp_path) -> None:
    facts = {"order": {"settled": True, "value": "id_desc"}, "max_limit": {"settled": False}}
    facts["omit_links"] = {"settled": True, "value": True}
    file = tmp_path / "facts.json"
    file.write_text(json.dumps({"format": "bc_attrvals probe 1", "facts": facts}))
    args = ("sandbox", "--quirk", "order=shuffled", "--quirks-from", file)
    assert served.run(*args).exit_code == 0
    (tmp_path / "sandbox.toml").write_text(f"quirks_from = '{file}'")
    assert served.run("sandbox", "--config", tmp_path / "sandbox.toml").exit_code == 0
    assert made[0]["quirks"] == Quirks(order="shuffled", omit_links=True)
    assert made[1]["quirks"] == Quirks(order="id_desc", omit_links=True)


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "No such file"), ("{}", "facts.json"), ('{"format": "x"}', "facts.json")],
)
def test_what_is_no_file_of_a_probe_exits_2(served, tmp_path, content, said) -> None:
    file = tmp_path / "facts.json"
    if content is not None:
        file.write_text(content)
    result = served.run("sandbox", "--quirks-from", file)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("plan = ", "sandbox.toml: Invalid value"),
        ("qota = 5", "'qota' is no option; did you mean quota?"),
        ("quota = 'x'", "'x' is neither a number nor none"),
        ("plan = 'pro'\nquota = 5", "give --plan or --quota, not both"),
        ("[quirks]\nodrer = 'id'", "did you mean order?"),
        ("[customers]\nann = 'a@b.c'", "'ann=a@b.c' is not ID=ADDRESS"),
        ("latency_ms = nan", "nan is not a finite number"),
        ("host = '0.0.0.0'", "set allow_remote"),
        ("https = 'yes'", "https must be true or false, not 'yes'"),
        ("latency_ms = true", "latency_ms must be a number, not True"),
        ("seed_values = 1.5", "seed_values must be a whole number, not 1.5"),
        ("quota = 2.5", "quota must be a whole number or 'none', not 2.5"),
        ("max_concurrent_puts = true", "max_concurrent_puts must be a whole number or 'none'"),
        ("quota = 0", "a quota of 0 allows nothing"),
        ("host = 5", "host must be a string, not 5"),
        ("faults = '503'", "faults must be a list or a table, not '503'"),
        ("plan = 'unlimited'\nwindow_s = 5", "--window-s has no meaning without a quota"),
    ],
)
def test_a_file_that_makes_no_sense_exits_2(served, tmp_path, text, said) -> None:
    file = tmp_path / "sandbox.toml"
    file.write_text(text)
    result = served.run("sandbox", "--config", file)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--plan", "pro", "--quota", "3"], "give --plan or --quota, not both"),
        (["--plan", "por"], "'por' is not one of 'standard', 'plus', 'pro', 'unlimited'"),
        (["--plan", "unlimited", "--window-s", "3"], "--window-s has no meaning without a quota"),
        (["--latency-ms", "nan"], "nan is not a finite number"),
        (["--latency-ms", "inf"], "inf is not in the range"),
        (["--latency-ms", "-1"], "-1.0 is not in the range"),
        (["--latency-ms", "1e9"], "1000000000.0 is not in the range"),
        (["--window-s", "nan"], "nan is not a finite number"),
        (["--window-s", "0"], "0.0 is not in the range 0<x"),
        (["--seed-values", "-1"], "-1 is not in the range"),
        (["--seed-values", "99999999999"], "is not in the range"),
        (["--port", "65536"], "is not in the range"),
        (["--quota", "-1"], "'-1' is neither a number nor none"),
        (["--quota", "0"], "a quota of 0 allows nothing"),
        (["--fault", "hnag"], "did you mean hang?"),
        (["--fault", "503,tmes=3"], "did you mean times?"),
        (["--fault", "503,operation=upset"], "did you mean upsert?"),
        (["--fault", "503=nan"], "probability must be a number"),
        (["--fault", "503=101%"], "probability must be from 0 to 1"),
        (["--fault", "slow,delay_s=inf"], "delay_s must be a number"),
        (["--fault", "slow,delay_s=1e9"], "delay_s must be from 0 to 3,600"),
        (["--fault", "503,times=1.5"], "times must be a whole number"),
        (["--fault", "503,applied=maybe"], "applied must be yes or no"),
        (["--fault", "503,times"], "times needs a value, as in times=3"),
        (["--fault", "503,after=1,after=2"], "after is given twice"),
        (["--fault", ""], "unknown fault kind ''"),
        (["--quirk", "oder=id"], "oder is not a quirk; did you mean order?"),
        (["--quirk", "order=up"], "order must be one of id, id_desc"),
        (["--customer", "ann@example.org"], "is not ID=ADDRESS"),
        (["--customer", "7=x"], "customers: item 0"),
        (["--attribute", "Tier"], "is not NAME=TYPE"),
        (["--attribute", "Tier=text"], "type must be one of string, number, date"),
        (["--host", "0.0.0.0"], "can be reached from elsewhere"),
        (["--puts-at-once", "0"], "max_concurrent_puts must be at least 1"),
        (["--config", "/nowhere/at/all.toml"], "No such file"),
        (["--database", "/nowhere/at/all.db"], "/nowhere/at/all.db: No such file"),
    ],
)
def test_what_makes_no_sense_exits_2(served, args, message) -> None:
    result = served.run("sandbox", *args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_a_ca_file_that_cannot_be_written_exits_2(served) -> None:
    pytest.importorskip("trustme", reason="the extra sandbox is not installed")
    result = served.run("sandbox", "--https", "--ca-file", "/nowhere/at/all.pem")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "/nowhere/at/all.pem: No such file" in result.stderr


def test_https_without_trustme_names_the_extra(served, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "trustme", None)
    result = served.run("sandbox", "--https")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "pip install 'bc_attrvals[sandbox]'" in result.stderr


@pytest.mark.parametrize(
    ("first", "second"),
    [("--ca-file", "--database"), ("--config", "--ca-file"), ("--quirks-from", "--ca-file")],
)
def test_a_file_of_another_option_is_not_written(served, made, tmp_path, first, second) -> None:
    content = {"--quirks-from": '{"format": "bc_attrvals probe 1", "facts": {}}'}.get(first, "")
    (tmp_path / "one").write_text(content)
    (tmp_path / "other").hardlink_to(tmp_path / "one")
    result = served.run("sandbox", "--https", first, tmp_path / "one", second, tmp_path / "other")
    assert (result.exit_code, made) == (2, [])
    assert f"{first} and {second} are the same file" in result.stderr
    assert (tmp_path / "one").read_text() == content
