"""The file of a probe is read as it was written, or refused with its name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bc_attrvals import InvalidInputError, Limits
from bc_attrvals.sandbox import Quirks

FORMAT = "bc_attrvals probe 1"


def written(folder: Path, **facts: object) -> Path:
    path = folder / "facts.json"
    path.write_text(json.dumps({"format": FORMAT, "more": 1, "facts": facts}))
    return path


def settled(value: object, **more: object) -> dict[str, object]:
    return {"settled": True, "value": value, "how": "seen", "calls": 1, **more}


def test_facts_that_are_not_settled_or_not_known_are_left_out(tmp_path: Path) -> None:
    left = {"settled": False, "value": None, "how": "not asked", "calls": 0, "largest": 3}
    path = written(tmp_path, max_limit=left, order=left, news=settled("x"))
    assert Limits.from_probe(path) == Limits()
    assert Quirks.from_probe(str(path)) == Quirks()


def test_a_limit_that_was_not_reached_is_the_largest_that_was_accepted(tmp_path: Path) -> None:
    path = written(tmp_path, max_delete_ids=settled(None, largest=120))
    assert Limits.from_probe(path) == Limits(delete_size=120)
    assert Quirks.from_probe(path) == Quirks(max_delete_ids=None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "facts.json"),
        ("[]", "facts.json"),
        ('{"format": "another", "facts": {}}', r"facts.json.*format"),
        (f'{{"format": "{FORMAT}", "facts": {{"order": 3}}}}', r"facts.json.*facts"),
        pytest.param(
            f'{{"format": "{FORMAT}", "facts": {{"order": {{"settled": true, "value": '
            f"{'[' * 100_000}",
            "facts.json.*recursion",
            id="nested",
        ),
    ],
)
def test_another_file_is_refused_with_its_name(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    path.write_text(content)
    with pytest.raises(InvalidInputError, match=message):
        Limits.from_probe(path)
    with pytest.raises(ValueError, match=message):
        Quirks.from_probe(path)


def test_a_value_that_is_none_of_the_setting_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, batch_by=settled("moons"), order=settled("sideways"))
    with pytest.raises(InvalidInputError, match="batch_by"):
        Limits.from_probe(path)
    with pytest.raises(ValueError, match=r"facts.json: order must be"):
        Quirks.from_probe(path)


def test_a_file_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Limits.from_probe(tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        Quirks.from_probe(tmp_path / "none")
