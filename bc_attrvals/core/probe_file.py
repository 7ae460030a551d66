"""Reads the JSON file of `bc-attrvals probe`: what was observed of one store.

The file is an object with `format`, `probed_at`, `attribute_type`, `keys` (how many values were
written), `calls`, `seconds` and `facts`, which are keyed by name. A fact is `{"settled": bool,
"value": …, "how": text, "calls": n}`. If it is not settled, `value` is null and `how` gives the
reason. Facts of a size also have `largest`, the largest size that was accepted. A fact named after
a quirk of the sandbox has a value that the quirk takes. The file holds no id, no value of a
customer, no address and no token.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from bc_attrvals.errors import InvalidInputError

PROBE_FORMAT: Final = "bc_attrvals probe 1"


class _Fact(msgspec.Struct):
    settled: bool
    value: Any = None
    largest: int | None = None


class _File(msgspec.Struct):
    format: Literal["bc_attrvals probe 1"]
    facts: dict[str, _Fact]


def read_probe_file(file: str | os.PathLike[str]) -> dict[str, _Fact]:
    """Return the settled facts of a probe's file by name.

    Raises `InvalidInputError` for a file of another kind, and OSError if it can't be read.
    """
    try:
        content = msgspec.json.decode(Path(file).read_bytes(), type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"{os.fspath(file)}: no file of bc-attrvals probe: {error}"
        raise InvalidInputError(message, field="file") from None
    return {name: fact for name, fact in content.facts.items() if fact.settled}
