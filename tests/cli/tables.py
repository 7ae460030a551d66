"""Input files that these tests write, command lines that name them, and a terminal to read."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

import pytest

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and terminals of POSIX")

#: When the first row of the fixture `stored` was written.
START = 1_700_000_000
HEAD = "customer_id,attribute_id,value\n"
CHANGED = HEAD + "1,1,new\n2,1,v2\n3,1,c;d\n"
WIDE = ["--wide", "--customer-column", "ID", "--attribute", "x=1", "--attribute", "y=2"]
X_AND_ZBAR = ["--wide", "--customer-column", "ID", "--attribute", "x=1", "--attribute", "zbar=4"]
TABLE = 'ID,x,zbar,note\r\n7,2,22.35,a\r\n8,,"say ""hi"", you",b\r\n9,"two\nlines",,c\r\n'

# Of the fixture `store`, whose customers and attributes have names.
PEOPLE = {1: "jane.doe+shop@example.com", 2: "jane@example.org", 3: "ann@example.net"}
KINDS = {"Loyalty tier": "string", "Score": "number", "Café=1": "string"}
CRM = ["--wide", "--email-column", "E-Mail", "--attributes-by-header"]

#: How many of 220 values are left, the options, and the exit status: more than half and more than
#: 100 deletions need an option.
DELETIONS = [
    (110, [], 0),
    (109, [], 2),
    (109, ["--max-delete", "110"], 2),
    (109, ["--max-delete", "111"], 0),
    (109, ["--max-delete", "49%"], 2),
]

GOOD = """
[[jobs]]
store_hash = "abc"
token_env = "FLEET_CLI_TOKEN"
source = "values.csv"
attribute_ids = [1]
"""


def csv_of(count: int, *, first: int = 1, value: str = "v") -> str:
    return HEAD + "".join(f"{n},1,{value}{n}\n" for n in range(first, first + count))


def wide(values: int, empty: int) -> str:
    cells = ["v"] * values + [""] * empty
    return "ID,x,y\n" + "".join(f"{n},{cell},\n" for n, cell in enumerate(cells, 1))


def write_jobs(folder: Path, text: str) -> Path:
    (folder / "values.csv").write_text("customer_id,attribute_id,value\n1,1,a\n2,1,b\n")
    path = folder / "jobs.toml"
    path.write_text(text)
    return path


def read_terminal(terminal: int) -> bytes:
    """Read a pseudo-terminal until the process at its other end has closed it, and close it."""
    shown = b""
    # Linux reports the end as an error.
    with suppress(OSError):
        while piece := os.read(terminal, 4096):
            shown += piece
    os.close(terminal)
    return shown
