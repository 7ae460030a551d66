"""The journal: the file from which a killed sync or upsert is resumed.

It holds the working set of one job, bound to the store, the scope and the input. A finished
journal keeps its report until the next job replaces it. There is no access token in it, but there
are customers' values: it is created for its owner alone.
"""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import suppress
from typing import Final

import attrs

from bc_attrvals.core.sync_states import Phase
from bc_attrvals.errors import JournalError
from bc_attrvals.sync.database import DatabaseKind, check_path, reading_file
from bc_attrvals.sync.options import JobKind, JournalPath
from bc_attrvals.sync.working_set import WorkingSet

_REMEDY: Final = (
    "finish that job with the call that began it, or discard it with restart=True "
    "(--restart on the command line)"
)
#: The notes of a finished job's report.
_REPORT: Final = ("report", "seal of report")


#: "BCJL". Format 1 was not bound to a base URL.
JOURNALS: Final = DatabaseKind(
    noun="journal",
    application_id=0x42434A4C,
    version=2,
    tables=WorkingSet,
    error=JournalError,
    other_version=(
        "finish the job with the version that began it, or discard it with restart=True "
        "(--restart on the command line)"
    ),
    # Rows are read and written in the order of their keys, so more is no faster.
    cache_kib=4_096,
)


@attrs.frozen
class Identity:
    """What a journal is bound to, besides its input.

    `place` is the base URL and the path of the resource, which names the store.
    """

    kind: JobKind
    place: str
    scope: str
    prune: bool

    def note(self, working_set: WorkingSet) -> None:
        """Write it to the journal."""
        working_set.put(kind=self.kind, place=self.place, scope=self.scope, prune=int(self.prune))

    def check(self, working_set: WorkingSet, name: str) -> None:
        """Raise `JournalError` if the journal is of another job, saying what differs."""
        kind, place = working_set.text("kind"), working_set.text("place")
        if kind != self.kind:
            difference = f"is of an {kind}" if kind == JobKind.UPSERT else f"is of a {kind}"
        elif place != self.place:
            difference = f"is of another store: {place!r}, not {self.place!r}"
        elif working_set.text("scope") != self.scope:
            difference = "is of a sync with another scope"
        elif bool(working_set.number("prune")) != self.prune:
            difference = f"is of a sync {'without' if self.prune else 'with'} prune"
        else:
            return
        raise other_job(name, difference)


def other_job(name: str, difference: str) -> JournalError:
    """Return the error that refuses an unfinished journal, with the remedy."""
    return JournalError(f"{name} {difference}, and not finished; {_REMEDY}")


def begin(working_set: WorkingSet, identity: Identity) -> None:
    """Empty the working set for a new job; the report of the finished one before it stays."""
    with working_set.transaction():
        kept = {name: working_set.text(name) for name in _REPORT if working_set.text(name)}
        working_set.create()
        working_set.put(**kept)
        identity.note(working_set)


def end_loading(working_set: WorkingSet, digest: str) -> None:
    """Note that the input was read to its end; from here on the journal is of the new job alone."""
    with working_set.transaction():
        working_set.put(phase=Phase.READING, digest=digest, **dict.fromkeys(_REPORT, ""))


def finish(working_set: WorkingSet, report: str) -> None:
    """Note that the job is done, with its report; leave one plain file, without a log."""
    with working_set.transaction():
        if working_set.tally().open:
            raise JournalError("the job can't be finished: some of its changes were not made")
        working_set.put(phase=Phase.FINISHED)
        working_set.put(**dict(zip(_REPORT, (report, _digest_of(report)), strict=True)))
    with suppress(sqlite3.OperationalError):
        working_set.connection.execute("PRAGMA journal_mode = DELETE")


def read_report(path: JournalPath) -> str:
    """Return the report that a finished job left in its journal; the file is only read.

    A new job leaves it there until its input is read to the end. Raises `JournalError`.
    """
    check_path(path, "journal")
    name = JOURNALS.name(path)
    with reading_file(JOURNALS, path) as working_set:
        phase = working_set.phase
        report, seal = map(working_set.text, _REPORT)
        if not report or phase not in {Phase.FINISHED, Phase.LOADING}:
            raise JournalError(f"{name} is of a job that is not finished ({phase})")
        if _digest_of(report) != seal:
            raise JournalError(f"{name} is damaged: its report is not as it was written")
        return report


def _digest_of(report: str) -> str:
    return hashlib.blake2b(report.encode(), digest_size=16).hexdigest()
