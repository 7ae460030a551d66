"""The input file of `upsert` and `sync`, from its options to its values."""

from __future__ import annotations

import pytest

from tests.cli.tables import posix


@pytest.mark.parametrize("command", ["upsert", "sync"])
@pytest.mark.parametrize(
    "content", ["customer_id,attribute_id,value\r\n", "email,attribute,value\n;;\n"]
)
def test_a_file_without_values_warns(served, command, content) -> None:
    result = served.run(command, "-", input=content.replace(";", ","))
    assert result.exit_code == 0
    assert "Warning: standard input: there are no values in it\n" in result.stderr
    assert served.sandbox.requests.seen == 0


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


@posix
def test_standard_input_and_output_can_be_chained(serve) -> None:
    with serve() as served:
        served.seed((1, 1, "ä\r\nb"), (2, 1, ""))
        before = served.values()
        process = served.start("export")
        stdout, _ = process.communicate(timeout=30)
        served.do(served.sandbox.reset())
        process = served.start("upsert", "-")
        process.communicate(stdout, timeout=30)
        assert process.returncode == 0
        assert served.values() == before
