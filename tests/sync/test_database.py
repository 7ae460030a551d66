"""A database file of any kind: one process holds it, and it is what it says, or it is refused."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import attrs
import pytest

from bc_attrvals import BCAttrValsError, InvalidInputError
from bc_attrvals.sync.database import (
    Database,
    DatabaseKind,
    check_path,
    open_file,
    open_temporary,
    reading_file,
)


class LedgerError(BCAttrValsError):
    """What files of this test raise."""


class Ledger(Database):
    """Tables of a kind of its own."""

    schema = ("CREATE TABLE entries (amount INTEGER)",)


LEDGERS = DatabaseKind("ledger", 0x1234, 3, Ledger, LedgerError, "convert it", 4_096)
OTHERS = attrs.evolve(LEDGERS, noun="diary", application_id=0x4321)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "ledger.db")


def amounts(ledger: Ledger) -> list[int]:
    return [one for (one,) in ledger.connection.execute("SELECT amount FROM entries")]


def add(path: str, *numbers: int, restart: bool = False) -> list[int]:
    with LEDGERS.errors(LEDGERS.name(path)):
        ledger = open_file(LEDGERS, path, restart=restart)
        with closing(ledger.connection), ledger.transaction():
            ledger.connection.executemany("INSERT INTO entries VALUES (?)", [(n,) for n in numbers])
            return amounts(ledger)


def test_it_is_made_for_its_owner_and_keeps_what_was_committed(path: str) -> None:
    assert add(path, 1, 2) == [1, 2]
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
    assert add(path, 3) == [1, 2, 3]
    with reading_file(LEDGERS, path) as ledger:
        assert amounts(ledger) == [1, 2, 3]
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            ledger.connection.execute("DELETE FROM entries")


def test_a_transaction_that_fails_leaves_nothing_and_an_inner_one_is_part_of_the_outer(
    path: str,
) -> None:
    ledger = open_file(LEDGERS, path)
    with closing(ledger.connection):

        def fail() -> None:
            with ledger.transaction():
                with ledger.transaction():
                    ledger.connection.execute("INSERT INTO entries VALUES (1)")
                raise LookupError

        with pytest.raises(LookupError):
            fail()
        assert amounts(ledger) == []


def test_notes_are_set_and_added_up() -> None:
    ledger = open_temporary(LEDGERS)
    with closing(ledger.connection):
        ledger.put(name="June", count=2)
        ledger.add(count=3, fresh=1.5, nothing=0)
        assert (ledger.text("name"), ledger.number("count"), ledger.number("fresh")) == (
            "June",
            5,
            1.5,
        )
        assert (ledger.text("nothing"), ledger.number("name")) == ("", 0)


def test_a_digest_changes_with_any_row_and_with_the_table_it_stands_in() -> None:
    ledger = open_temporary(LEDGERS)
    with closing(ledger.connection):
        queries = ("SELECT amount FROM entries ORDER BY amount", "SELECT 1 WHERE 0")
        found = [ledger.digest(queries)]
        ledger.connection.execute("INSERT INTO entries VALUES (1)")
        found += [ledger.digest(queries), ledger.digest(queries[::-1])]
        ledger.connection.execute("UPDATE entries SET amount = 2")
        found.append(ledger.digest(queries))
        assert len(set(found)) == 4


def test_one_that_is_open_is_held(path: str) -> None:
    ledger = open_file(LEDGERS, path)
    with closing(ledger.connection):
        for restart in (False, True):
            with pytest.raises(LedgerError, match=r"ledger.*held by another"):
                add(path, 1, restart=restart)
        with pytest.raises(LedgerError, match="held by another"), reading_file(LEDGERS, path):
            pass
    assert add(path, 1) == [1]


def test_another_kind_another_version_and_damage_are_refused_by_name(path: str) -> None:
    add(path, *range(2_000))
    with pytest.raises(LedgerError, match="is no diary of bc_attrvals"), OTHERS.errors("it"):
        open_file(OTHERS, path)
    newer = attrs.evolve(LEDGERS, version=4)
    with pytest.raises(LedgerError, match=r"format 3.*format 4: convert it"):
        open_file(newer, path)
    with open(path, "r+b") as file:  # noqa: PTH123
        file.seek(4096)
        file.write(os.urandom(4096))
    with pytest.raises(LedgerError, match="damaged"):
        add(path)
    assert add(path, 7, restart=True) == [7]


def test_one_that_can_not_be_written_to_is_refused_by_name(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(path, 1)
    # The superuser may write to a read-only file.
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(LedgerError, match="can't be written to: the file or its directory is"):
        add(path, 2)
    monkeypatch.undo()
    error = sqlite3.OperationalError("attempt to write a readonly database")
    error.sqlite_errorcode = sqlite3.SQLITE_READONLY_DIRECTORY
    with pytest.raises(LedgerError, match="read-only"), LEDGERS.errors("it"):
        raise error


def test_a_restart_empties_only_files_of_the_kind(path: str) -> None:
    add(path, 1, 2)
    assert add(path, 3, restart=True) == [3]
    with pytest.raises(LedgerError, match="no diary"):
        open_file(OTHERS, path, restart=True)
    assert add(path) == [3]


def test_a_restart_is_no_second_way_round_the_links(tmp_path: Path, path: str) -> None:
    add(path, 1)
    link = tmp_path / "link.db"
    link.symlink_to(path)
    with pytest.raises(LedgerError, match="symbolic link"):
        open_file(LEDGERS, str(link), restart=True)
    assert add(path) == [1]


def test_reading_makes_no_file(path: str) -> None:
    with pytest.raises(LedgerError, match="does not exist"), reading_file(LEDGERS, path):
        pass
    assert not Path(path).exists()


@pytest.mark.parametrize("bad", ["", "a\0b", 7, None])
def test_what_is_no_path_is_refused_by_the_name_of_its_argument(bad: object) -> None:
    with pytest.raises(InvalidInputError) as caught:
        check_path(bad, "mirror")  # type: ignore[arg-type]
    assert caught.value.field == "mirror"


def test_the_cache_is_as_large_as_the_kind_says(path: str) -> None:
    for ledger in (open_file(LEDGERS, path), open_temporary(LEDGERS)):
        with closing(ledger.connection):
            assert ledger.one("PRAGMA cache_size") == -4_096
