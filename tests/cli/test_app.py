"""The command group: usage, help, and how it ends."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from bc_attrvals.cli import app, main
from bc_attrvals.cli.app import cli
from tests.cli.tables import X_AND_ZBAR, posix


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
        ["upsert", "in.csv", *X_AND_ZBAR, "--empty", "delete"],
        ["upsert", "-", *X_AND_ZBAR, "--empty", "delete"],
        ["upsert", "in.csv", *X_AND_ZBAR, "--empty", "keep"],
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
        ["sandbox", "--store-hash", "../x"],
        ["sandbox", "--access-token", ""],
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


def test_without_the_extra_one_line_says_how_to_install_it() -> None:
    code = "import sys; sys.modules['click'] = None; from bc_attrvals.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "pip install 'bc_attrvals[cli]'" in done.stderr


@pytest.mark.parametrize("while_", ["make_context", "invoke"])
def test_ctrl_c_at_any_time_exits_130(monkeypatch, capsys, while_) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bc_attrvals.cli.prepare_streams", lambda: None)
    monkeypatch.setattr(sys, "argv", ["bc-attrvals", "count"])
    monkeypatch.setattr(cli, while_, interrupt)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert capsys.readouterr().err.strip() == "Interrupted."


_CONTEXT = click.Context(cli)
_COMMANDS = {name: cli.get_command(_CONTEXT, name) for name in cli.list_commands(_CONTEXT)}


@pytest.mark.parametrize("name", _COMMANDS)
def test_help_says_what_every_option_does_and_shows_examples(served, name) -> None:
    command = _COMMANDS[name]
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


@pytest.mark.parametrize("name", _COMMANDS)
def test_the_list_of_commands_says_what_their_own_help_says(name) -> None:
    listed = click.Command(name, help=app._COMMANDS[name])
    assert listed.get_short_help_str(200) == _COMMANDS[name].get_short_help_str(200)


def test_help_loads_no_client() -> None:
    code = "import sys; from bc_attrvals.cli.app import cli; cli(['--help'], 'x', \
standalone_mode=False); assert not {'aiohttp', 'bc_attrvals.sandbox'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


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
    commands = [cli, *_COMMANDS.values(), *_COMMANDS["attributes"].commands.values()]
    options = {name for one in commands for parameter in one.params for name in parameter.opts}
    options |= {"--help"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) <= options
    variables = {parameter.envvar for parameter in cli.params}
    assert set(re.findall(r"BIGCOMMERCE_[A-Z_]+", text)) <= variables
    (head,) = re.findall(r"Exit status: (.*)\.\n", " ".join(cli.help.split()) + "\n")
    assert re.findall(r"\b\d+\b", head) == ["0", "1", "2", "3", "130", "143", "141"]


def test_the_version_is_told(served) -> None:
    assert served.run("--version").stdout.startswith("bc-attrvals ")


@posix
@pytest.mark.parametrize("variables", [{}, {"PYTHONUNBUFFERED": "1"}])
def test_a_broken_pipe_ends_quietly(serve, variables) -> None:
    with serve() as served:
        served.seed(*((customer, 1, "v" * 200) for customer in range(1, 2000)))
        process = served.start("export", variables=variables)
        assert process.stdout is not None
        assert process.stdout.readline() == b"customer_id,attribute_id,value\r\n"
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        process.stderr.close()
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 141
