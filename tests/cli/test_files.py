"""Files of commands: failures in the input's own form, safe exports, inputs that change."""

from __future__ import annotations

import pytest

WIDE = ["--wide", "--customer-column", "ID", "--attribute", "x=1", "--attribute", "y=2"]


def test_a_named_delimiter_is_written_to_the_failures_too(served, tmp_path) -> None:
    served.sandbox.reject_customers([1])
    failed = tmp_path / "failed.csv"
    options = ["upsert", "-", "--delimiter", "^", "--failures", failed]
    text = "customer_id^attribute_id^value\n1^2^a,b\n3^2^c\n"
    assert served.run(*options, input=text).exit_code == 1
    assert failed.read_text().startswith("customer_id^attribute_id^value^reason\n1^2^a,b^")
    served.sandbox.accept_customers()
    assert served.run("upsert", failed, "--delimiter", "^").exit_code == 0
    assert served.values() == {(1, 2): "a,b", (3, 2): "c"}
    for bad in ("ab", "", '"', "\n"):
        assert served.run("upsert", "-", "--delimiter", bad, input=text).exit_code == 2
    refused = served.run("upsert", failed, "--format", "jsonl", "--delimiter", ";")
    assert "--delimiter is for CSV" in refused.stderr
    assert (
        served.run("upsert", "-", "--delimiter", "tab", input=text.replace("^", "\t")).exit_code
        == 0
    )


SAFE = {
    "=1+1": "'=1+1",
    "+1+1": "'+1+1",
    "-1+1": "'-1+1",
    "@SUM(A1)": "'@SUM(A1)",
    "\t=1": "'\t=1",
    "\r=1": "'\r=1",
    " =1": "' =1",
    "＝1": "'＝1",
    "＋1a": "'＋1a",
    "－1a": "'－1a",
    "＠x": "'＠x",
    "-": "'-",
    "-12.5": "-12.5",
    "+3": "+3",
    "-1.5e-7": "-1.5e-7",
    "-1\n": "'-1\n",
    "a=1": "a=1",
    "'=1": "'=1",
    "12": "12",
    "": "",
}


def test_a_spreadsheet_runs_nothing_of_a_safe_export(served, parse) -> None:
    served.seed(*((n, 1, cell) for n, cell in enumerate(SAFE, 1)))
    safe = served.run("export", "--spreadsheet-safe")
    cells = {int(row[0]): row[2] for row in parse(safe.stdout_bytes.decode())[1:]}
    assert [cells[n] for n in sorted(cells)] == list(SAFE.values())
    plain = parse(served.run("export").stdout_bytes.decode())[1:]
    assert {row[2] for row in plain} == set(SAFE)
    wide = [*WIDE[:2], "=ID", "--attribute", "@x=1"]
    rows = parse(served.run("export", "--spreadsheet-safe", *wide).stdout_bytes.decode())
    assert rows[0] == ["'=ID", "'@x"]
    assert rows[1] == ["1", "'=1+1"]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet", ""])
def test_failures_of_the_wide_form_are_given_in_again_with_the_same_options(
    served, tmp_path, summary, suffix
) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    served.sandbox.reject_customers([2])
    path, failed = tmp_path / "in.csv", tmp_path / f"failed{suffix}"
    path.write_text("ID;y;x\n1;a;b\n2;c;=d\n3;;e\nzz;f;g\n4;h;" + "i" * 300 + "\n")
    result = served.run("upsert", path, *WIDE, "--failures", failed, "--skip-invalid", "--json")
    found = summary(result)
    assert (result.exit_code, found["failed"], found["skipped"]) == (1, 2, 3)
    served.sandbox.accept_customers()
    again = served.run("upsert", failed, *WIDE, "--skip-invalid", "--json")
    assert summary(again)["skipped"] == 3
    assert {key: value for key, value in served.values().items() if key[0] == 2} == {
        (2, 1): "=d",
        (2, 2): "c",
    }
    assert len(served.values()) == 6


def test_failures_have_the_names_and_the_encoding_of_the_input(served, tmp_path) -> None:
    served.sandbox.reject_customers([5])
    path, failed = tmp_path / "in.csv", tmp_path / "failed.csv"
    options = ["--column", "customer_id=reason", "--column", "value=Größe"]
    options += ["--encoding", "latin-1"]
    path.write_bytes("reason;attribute_id;Größe\n5;6;ä\n".encode("latin-1"))
    assert served.run("upsert", path, *options, "--failures", failed).exit_code == 1
    text = failed.read_bytes().decode("latin-1")
    assert text.startswith("reason,attribute_id,Größe,reason_\r\n5,6,ä,")
    served.sandbox.accept_customers()
    assert served.run("upsert", failed, *options).exit_code == 0
    assert served.values() == {(5, 6): "ä"}


@pytest.mark.parametrize("command", ["upsert", "sync", "delete"])
def test_a_file_that_is_cut_after_its_check_loses_nothing(
    served, tmp_path, monkeypatch, command
) -> None:
    """The rows that were checked are sent, whatever becomes of the file."""
    from bc_attrvals.cli import running

    path = tmp_path / "in.csv"
    rows = [(customer, 1, f"v{customer}") for customer in range(1, 3_001)]
    expected = {(customer, 1): value for customer, _, value in rows}
    if command == "delete":
        served.seed(*rows)
        ids = [row.id for row in served.do(served.sandbox.rows())]
        path.write_text("\n".join(map(str, ids)))
        args = ["delete", "--ids", path, "--yes"]
        expected = {}
    else:
        text = "".join(f"{customer},1,{value}\n" for customer, _, value in rows)
        path.write_text("customer_id,attribute_id,value\n" + text)
        args = [command, path]
    if command == "sync":
        served.seed(*rows)
        args += ["--prune", "--yes", "--attribute-id", "1"]

    def cut_and_run(*given: object) -> None:
        size = path.stat().st_size
        path.write_bytes(path.read_bytes()[: size // 4])
        running.run_job(*given)

    monkeypatch.setattr(f"bc_attrvals.cli.commands.{command}.run_job", cut_and_run)
    assert served.run(*args).exit_code == 0
    assert path.stat().st_size < 30_000
    assert served.values() == expected


@pytest.mark.parametrize("command", ["upsert", "sync"])
@pytest.mark.parametrize(
    "content", ["customer_id,attribute_id,value\r\n", "email,attribute,value\n;;\n"]
)
def test_a_file_without_values_warns(served, command, content) -> None:
    result = served.run(command, "-", input=content.replace(";", ","))
    assert result.exit_code == 0
    assert "Warning: standard input: there are no values in it\n" in result.stderr
    assert served.sandbox.requests.seen == 0


@pytest.mark.parametrize("name", ["e.xlsx", "e.XLS", "e.ods", "e.csv.zip", "e.jsonl.bz2"])
def test_a_format_that_is_not_written_is_refused(served, tmp_path, name) -> None:
    result = served.run("export", "-o", tmp_path / name)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "neither read nor written" in result.stderr
    assert (list(tmp_path.iterdir()), served.sandbox.requests.seen) == ([], 0)


@pytest.mark.parametrize("suffix", [".csv.gz", ".jsonl.gz", ".parquet.gz"])
def test_gzip_goes_out_and_in(served, tmp_path, suffix) -> None:
    if "parquet" in suffix:
        pytest.importorskip("pyarrow")
    served.seed(*((n, 1, f" v{n}") for n in range(1, 3_001)))
    stored, path, failed = served.values(), tmp_path / f"out{suffix}", tmp_path / f"f{suffix}"
    assert served.run("export", "-o", path).exit_code == 0
    assert path.read_bytes()[:2] == b"\x1f\x8b"
    served.do(served.sandbox.reset())
    served.sandbox.reject_customers([5, 7])
    assert served.run("upsert", path, "--failures", failed).exit_code == 1
    served.sandbox.accept_customers()
    assert served.run("upsert", failed).exit_code == 0
    assert served.values() == stored
