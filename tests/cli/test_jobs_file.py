"""JOBS.toml: what can not be is said by file and field."""

from __future__ import annotations

import pytest

from tests.cli.tables import GOOD, write_jobs


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("jobs = 5", "jobs: there must be at least one"),
        ("[[jobs", "no TOML"),
        ("other = 1", "other: unknown"),
        (GOOD + 'colour = "red"', "jobs[0].colour: unknown field"),
        (GOOD.replace('"abc"', "5"), "jobs[0].store_hash: must be a string"),
        (GOOD.replace('"abc"', '"a/b"'), "jobs[0].store_hash: "),
        (GOOD.replace("values.csv", "none.csv"), "jobs[0].source: "),
        (GOOD.replace("[1]", "[0]"), "jobs[0].attribute_ids: "),
        (GOOD.replace("[1]", "[]"), "jobs[0].attribute_ids: must be a list of ids"),
        (GOOD.replace("attribute_ids = [1]", "prune = true"), "jobs[0].prune: needs"),
        (GOOD.replace('token_env = "FLEET_CLI_TOKEN"', ""), "jobs[0].token_env: missing"),
        (GOOD + 'journal = "none/a.db"', "jobs[0].journal: "),
        (GOOD + 'url = "http://example.com"', "jobs[0].url: "),
        (GOOD + 'customer_column = "ID"', "jobs[0].customer_column: the wide form"),
        (GOOD + 'columns = {colour = "x"}', "jobs[0].columns: "),
        (GOOD + GOOD, "jobs[1].name: the same as of jobs[0]"),
        (GOOD + 'journal = "./values.csv"', "jobs[0].source and jobs[0].journal are the same"),
        (GOOD + 'journal = "jobs.toml"', "this file and jobs[0].journal are the same"),
        (
            GOOD + 'journal = "a.db"' + GOOD + 'name = "b"\njournal = "./a.db"',
            "jobs[0].journal and jobs[1].journal are the same file",
        ),
        ("[defaults]\nprune = 1\n" + GOOD, "defaults.prune: must be true or false"),
        (GOOD, "jobs[0].token_env: the variable FLEET_CLI_TOKEN is not set"),
        ("\ufeff" + GOOD, "jobs[0].token_env: the variable FLEET_CLI_TOKEN is not set"),
        (GOOD.replace('"FLEET_CLI_TOKEN"', '"A=B"'), "jobs[0].token_env: must be the name"),
        (GOOD.replace('"FLEET_CLI_TOKEN"', '"A\\u0000"'), "jobs[0].token_env: must not hold"),
        (GOOD + 'journal = "a\\u0000b"', "jobs[0].journal: must not hold the character NUL"),
        (GOOD + 'journal = "."', "is a directory"),
        (GOOD + 'mirror = "."', "jobs[0].mirror: "),
        (GOOD + 'journal = "a.db"\nmirror = "a.db"', "jobs[0].mirror are the same file"),
        (GOOD + f'journal = "{"a/" * 4_000}b"', "jobs[0].journal: "),
        (GOOD + 'encoding = "nope"', "jobs[0].encoding: is an unknown"),
        (GOOD + 'encoding = "hex"', "jobs[0].encoding: is an unknown"),
        (GOOD + 'encoding = "idna"', "jobs[0].encoding: is an unknown"),
        (GOOD.replace('"values.csv"', '"jobs.toml"'), "jobs[0].format: "),
        (GOOD + 'email_column = "E"', "jobs[0].customer_column: the wide form needs"),
        (GOOD + 'attributes = {x = ""}', "jobs[0].attributes: has an empty name"),
        (GOOD + 'delimiter = ";;"', "jobs[0].delimiter: must be one character"),
        (GOOD + 'proxy_env = "A=B"', "jobs[0].proxy_env: must be the name"),
        (GOOD + "trust_env = 1", "jobs[0].trust_env: must be true or false"),
        ("x = " + "9" * 6_000, "it holds an integer of too many digits"),
        (GOOD.replace("[1]", f"[{'9' * 6_000}]"), "it holds an integer of too many digits"),
        (GOOD.replace("[1]", f"[0x{'f' * 6_000}]"), "jobs[0].attribute_ids: holds a number of too"),
        ("x = " + "[" * 20_000 + "]" * 20_000, "nested too deeply"),
    ],
)
def test_what_can_not_be_is_named_by_file_and_field(served, tmp_path, text, message) -> None:
    path = write_jobs(tmp_path, text)
    result = served.run("fleet", path)
    assert result.exit_code == 2, result.stderr
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert served.sandbox.requests.seen == 0
