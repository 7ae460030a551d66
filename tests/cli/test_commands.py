"""The commands end to end: what goes in comes out, and the documented exit statuses."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from bc_attrvals.cli import app, settings
from bc_attrvals.cli.app import cli
from bc_attrvals.core.retry import RetryPolicy
from bc_attrvals.store import Store

WIDE = ["--wide", "--customer-column", "ID", "--attribute", "x=1", "--attribute", "zbar=4"]
TABLE = 'ID,x,zbar,note\r\n7,2,22.35,a\r\n8,,"say ""hi"", you",b\r\n9,"two\nlines",,c\r\n'
VALUES = {(7, 1): "2", (7, 4): "22.35", (8, 4): 'say "hi", you', (9, 1): "two\nlines"}


def test_a_wide_table_comes_back_value_by_value(served, tmp_path, parse) -> None:
    (tmp_path / "in.csv").write_text(TABLE, newline="")
    stored = served.run("upsert", tmp_path / "in.csv", *WIDE)
    assert (stored.exit_code, served.values()) == (0, VALUES)
    assert "Stored 4 values" in stored.stdout
    wide = served.run("export", *WIDE)
    assert parse(wide.stdout) == [row[:3] for row in parse(TABLE)]
    long = served.run("export", "--output", tmp_path / "long.csv")
    assert long.exit_code == 0
    served.do(served.sandbox.reset())
    assert served.run("upsert", tmp_path / "long.csv").exit_code == 0
    assert served.values() == VALUES


def test_json_lines_come_back_value_by_value(served, tmp_path) -> None:
    served.seed(*((*key, value) for key, value in VALUES.items()), (1, 1, ""))
    expected = served.values()
    for options in ([], [*WIDE], ["--all-columns"]):
        name = tmp_path / "values.jsonl"
        assert served.run("export", "--output", name, *options).exit_code == 0
        lines = [json.loads(line) for line in name.read_text().splitlines()]
        assert len(lines) == (4 if options == WIDE else 5)
        served.do(served.sandbox.reset())
        form = [one for one in options if one != "--all-columns"]
        assert served.run("upsert", name, *form).exit_code == 0
        # The wide form leaves empty values alone.
        wanted = {key: value for key, value in expected.items() if value or options != WIDE}
        assert served.values() == wanted
        served.seed((1, 1, ""))


def test_exported_files_are_private_and_whole(served, tmp_path) -> None:
    served.seed((1, 2, "v"))
    target = tmp_path / "out.csv"
    assert served.run("export", "-o", target).exit_code == 0
    assert target.stat().st_mode & 0o777 == 0o600
    served.sandbox.faults.add("401")
    assert served.run("export", "-o", target).exit_code == 3
    assert target.read_bytes() == b"customer_id,attribute_id,value\r\n1,2,v\r\n"
    assert [one.name for one in tmp_path.iterdir()] == ["out.csv"]


@pytest.mark.parametrize("kind", ["link", "directory", "device", "missing"])
def test_output_that_is_no_ordinary_file_is_refused(served, tmp_path, kind) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (tmp_path / "link").symlink_to(victim)
    target = {
        "link": tmp_path / "link",
        "directory": tmp_path,
        "device": "/dev/null",
        "missing": tmp_path / "none" / "out.csv",
    }[kind]
    result = served.run("export", "--output", target)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert victim.read_text() == "untouched"
    assert served.sandbox.requests.seen == 0


def test_filters_reach_the_service(served) -> None:
    served.seed((1, 1, "a"), (1, 2, "b"), (2, 1, "c"), (3, 3, "d"))
    count = ["count", "--quiet"]
    assert served.run(*count).stdout == "4\n"
    assert served.run(*count, "--customer-id", "1,2", "--customer-id", 3).stdout == "4\n"
    assert served.run(*count, "--customer-id", "1", "--attribute-id", "1").stdout == "1\n"
    assert served.run(*count, "--created-max", "2001-01-01").stdout == "0\n"
    since = "2001-01-01T00:00:00.5+02:00"
    assert served.run(*count, "--modified-min", since, "--created-min", since).stdout == "4\n"
    assert "date_modified:min=2000-12-31T22:00:01Z" in served.sandbox.requests[-1].query_string


@pytest.mark.parametrize(
    "args",
    [
        ["count", "--customer-id", ""],
        ["count", "--customer-id", "1,,2"],
        ["count", "--attribute-id", "0"],
        ["count", "--created-min", "2024-05-14T09:34:00"],
        ["count", "--created-min", "yesterday"],
        ["count", "--name", ""],
        ["--url", "http://example.com", "count"],
        ["count", "--url", "nonsense"],
        ["cuont"],
        ["export", "--json"],
        ["export", "--wide"],
        ["export", "--attribute", "x=1"],
        ["export", "--wide", "--customer-column", "a", "--attribute", "x"],
        ["export", "--wide", "--customer-column", "a", "--attribute", "x=1", "--attribute", "y=1"],
        ["export", "--output", "x.xlsx"],
        ["export", "--spreadsheet-safe", "--format", "jsonl"],
        ["export", "--spreadsheet-safe", "--format", "parquet"],
        ["upsert", "in.csv", "--empty", "delete", "--yes"],
        ["upsert", "in.csv", *WIDE, "--empty", "delete"],
        ["upsert", "-", *WIDE, "--empty", "delete"],
        ["upsert", "in.csv", *WIDE, "--empty", "keep"],
        ["--completion", "tcsh"],
        ["upsert", "/dev/null", "--column", "id=x"],
        ["delete"],
        ["delete", "--yes"],
        ["delete", "--everything", "--attribute-id", "1", "--yes"],
        ["delete", "--attribute-id", "1"],
        ["delete", "--ids", "-"],
        ["sandbox", "--fault", "nonsense=1"],
        ["sandbox", "--fault", "503=2"],
        ["sandbox", "--quota", "many"],
        ["sandbox", "--window-s", "0"],
        ["demo", "--quota", "0"],
    ],
    ids=" ".join,
)
def test_bad_usage_exits_2_and_sends_nothing(served, args) -> None:
    result = served.run(*args)
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr
    assert "Error: " in result.stderr
    assert served.sandbox.requests.seen == 0


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("BIGCOMMERCE_API_URL", "https://api.bigcommerce.com/stores/abc/v3", "before /stores/"),
        ("BIGCOMMERCE_API_URL", "https://api.bigcommerce.com/stores", "before /stores/"),
        ("BIGCOMMERCE_ACCESS_TOKEN", "abc\n", "a line break or a blank at its start or end"),
        ("BIGCOMMERCE_ACCESS_TOKEN", " abc", "a line break or a blank at its start or end"),
    ],
)
def test_a_bad_variable_is_explained(served, name, value, told) -> None:
    result = CliRunner(env=served.environment | {name: value}).invoke(cli, ["count"])
    assert result.exit_code == 2
    assert told in result.stderr
    assert "abc\n" not in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_proxy_is_used_and_never_shown(serve, served, monkeypatch) -> None:
    secret = "http://user:s3cret@127.0.0.1:1"  # nothing listens there
    args = ["--url", "https://api.bigcommerce.example", "--quiet", "count"]
    monkeypatch.setattr(settings, "Store", partial(Store, retry=RetryPolicy(attempts=1)))
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


def test_a_mistyped_command_is_guessed(served) -> None:
    assert "Did you mean 'export'?" in served.run("exprot").stderr


def test_options_count_before_and_after_the_command(served) -> None:
    own = served.environment
    url = own["BIGCOMMERCE_API_URL"]
    for args in (
        ["--url", "http://127.0.0.1:1", "--quiet", "count", "--url", url],
        ["--url", url, "--json", "count", "--store-hash", "sandbox"],
    ):
        assert served.run(*args).exit_code == 0
    assert served.run("count", "--access-token", "wrong").exit_code == 3


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


def test_delete_by_filter_by_ids_and_everything(served, tmp_path, summary) -> None:
    served.seed(*((customer, attribute, "v") for customer in (1, 2, 3) for attribute in (1, 2, 3)))
    result = served.run("delete", "--attribute-id", 1, "--yes", "--json")
    assert summary(result)["deleted"] == 3
    exported = served.run("export", "--all-columns", "--attribute-id", "2")
    result = served.run("delete", "--ids", "-", "--yes", "--json", input=exported.stdout)
    assert summary(result)["deleted"] == 3
    ids = tmp_path / "ids.txt"
    ids.write_text("\n".join(str(row.id) for row in served.do(served.sandbox.rows())[:2]))
    assert served.run("delete", "--ids", ids, "--yes").exit_code == 0
    assert served.do(served.sandbox.count()) == 1
    assert served.run("delete", "--everything", "--yes").exit_code == 0
    assert served.values() == {}


@pytest.mark.parametrize(
    "text", ["", "1\n2x\n", "customer\n1\n", "1\n0\n", "1\n\0\n", "id,id\n1,2\n"]
)
def test_bad_ids_delete_nothing(served, tmp_path, text) -> None:
    served.seed((1, 1, "v"))
    ids = tmp_path / "ids.txt"
    ids.write_text(text)
    assert served.run("delete", "--ids", ids, "--yes").exit_code == 2
    assert served.sandbox.requests.seen == 0


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
    result = served.run("demo", "--json", "--input", tmp_path / "in.csv", *WIDE)
    found = summary(result)
    assert found["equal"] is True
    assert found["rate_limited"] == 0
    assert found["steps"][0]["values"] == 4


def test_without_the_extra_one_line_says_how_to_install_it() -> None:
    code = "import sys; sys.modules['click'] = None; from bc_attrvals.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "pip install 'bc_attrvals[cli]'" in done.stderr


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_help_says_what_every_option_does_and_shows_examples(served, name) -> None:
    command = cli.commands[name]
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
        else:
            # What an argument is stands in the text.
            assert parameter.make_metavar(click.Context(command)) in (command.help or "")
    result = served.run(name, "--help")
    assert result.exit_code == 0
    examples = result.stdout.partition("Examples:")[2]
    assert f"bc-attrvals {name}" in examples
    own = [line for line in examples.splitlines() if f"bc-attrvals {name}" in line]
    options = result.stdout.partition("Options:")[2].partition("Examples:")[0]
    for line in own:
        for option in re.findall(r"(?<= )--[a-z-]+", line.partition(f"bc-attrvals {name}")[2]):
            assert option in options


_HELP = """
import sys
from bc_attrvals.cli import main
for args in (["--help"], ["sync", "--help"], ["sandbox", "--help"]):
    sys.argv[1:] = args
    try:
        main()
    except SystemExit as end:
        assert not end.code
"""


@pytest.mark.parametrize("encoding", ["latin-1", "cp437", "ascii"])
def test_help_prints_in_any_encoding(encoding) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "utf8=0", "-c", _HELP],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.count(b"Examples:") == 3


def test_the_readme_names_options_and_variables_that_exist() -> None:
    text = (Path(app.__file__).parent / "README.md").read_text("utf-8")
    commands = [cli, *cli.commands.values(), *cli.commands["attributes"].commands.values()]
    options = {name for one in commands for parameter in one.params for name in parameter.opts}
    options |= {"--help"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) <= options
    variables = {parameter.envvar for parameter in cli.params}
    assert set(re.findall(r"BIGCOMMERCE_[A-Z_]+", text)) <= variables
    (head,) = re.findall(r"Exit status: (.*)\.\n", " ".join(cli.help.split()) + "\n")
    assert re.findall(r"\b\d+\b", head) == ["0", "1", "2", "3", "130", "143", "141"]


def test_the_version_is_told(served) -> None:
    assert served.run("--version").stdout.startswith("bc-attrvals ")
