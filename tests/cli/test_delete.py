"""`delete`: by filter, by ids and everything."""

from __future__ import annotations

import pytest


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
