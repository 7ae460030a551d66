"""FILE and the options that `sync` and `upsert` share: described, checked and opened here."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import Final, Literal, Self

import anyio.to_thread
import attrs
import click

from bc_attrvals.cli.attribute_names import attribute_ids
from bc_attrvals.cli.console import need_terminal, refuse, warn
from bc_attrvals.cli.deletion_limit import DeletionLimit
from bc_attrvals.cli.empty_cells import EmptyCells
from bc_attrvals.cli.file_options import FileOptions, input_options
from bc_attrvals.cli.input_check import check
from bc_attrvals.cli.job_runner import CommandJob
from bc_attrvals.cli.options import F, bundled, file_option, flag, parsed
from bc_attrvals.cli.output_rows import FailureFile
from bc_attrvals.cli.path_conflicts import check_paths
from bc_attrvals.cli.settings import Settings
from bc_attrvals.core.limits import Limits
from bc_attrvals.core.named_value import Item
from bc_attrvals.store import Store
from bc_attrvals.tables.files import STANDARD, open_input
from bc_attrvals.tables.layout import Layout, file_format
from bc_attrvals.tables.reader import read_cells, read_values, resolved_layout
from bc_attrvals.tables.rows import BadRow, Entry

_CHUNK_ROWS: Final = 500


@attrs.frozen(kw_only=True)
class ValueFile:
    """FILE and its options, as they were given."""

    file: str
    options: FileOptions
    #: Whether empty cells are values to delete.
    deletes_empty: bool
    failures: str | None
    skip_invalid: bool
    journal: str | None
    restart: bool
    dry_run: bool
    yes: bool
    max_delete: DeletionLimit | None
    batch_by: Literal["rows", "customers"]

    @property
    def limit(self) -> DeletionLimit:
        """The most values to delete, as given or by default."""
        return self.max_delete or DeletionLimit()

    @property
    def limits(self) -> Limits:
        """The limits of the Store, with what a call counts."""
        return Limits(batch_by=self.batch_by)

    @property
    def asks(self) -> bool:
        """Whether to ask before deleting."""
        return not (self.yes or self.dry_run)

    def check(
        self,
        settings: Settings,
        *,
        prune: bool | None = None,
        outputs: Iterable[tuple[str, str | None]] = (),
        databases: Iterable[tuple[str, str | None]] = (),
    ) -> Layout:
        """Return the layout of the file.

        `prune` is None for a command without that option. `outputs` are others than the failures,
        `databases` others than the journal.

        Raises `click.UsageError` or `FileError` for options that do not go together. Nothing was
        read then.
        """
        shape = self.options.input_layout(self.file)
        empty = self.deletes_empty
        refuse(empty and not shape.wide, "--empty delete goes with --wide")
        refuse(
            empty and not shape.by_id, "--empty delete needs --customer-column and attribute ids"
        )
        refuse(self.restart and self.journal is None, "--restart goes with --journal")
        refuse(
            self.max_delete and not (prune or empty),
            f"--max-delete goes with {'' if prune is None else '--prune or '}--empty delete",
        )
        if prune or empty:
            need_terminal(yes=not self.asks, stdin_taken=self.file == STANDARD, what="deletes")
        written = [("--failures", self.failures), *outputs]
        check_paths(
            [("FILE", self.file)],
            written,
            [("--journal", self.journal), *databases],
            json=settings.json,
        )
        for _, path in written:
            if path is not None:
                file_format(path, None)
        return shape

    @contextmanager
    def opened(self, settings: Settings, shape: Layout) -> Iterator[Values]:
        """Open the file and read it once, to check every row; the rows are kept in a spool.

        Raises `FileError` for a bad file, and `Failure` for bad rows unless they are skipped.
        """
        with ExitStack() as stack:
            source = stack.enter_context(open_input(self.file))
            cells = stack.enter_context(EmptyCells()) if self.deletes_empty else None
            by_header = shape.attributes_by_header
            with self.options.hinted():
                shape = resolved_layout(source, shape)
            entries = (
                read_values(source, shape)
                if cells is None
                else cells.watch(read_cells(source, shape))
            )
            name = source.name
            rows, good = check(entries, name, settings, stack, skip_invalid=self.skip_invalid)
            failures = None
            if self.failures is not None:
                # A row of the wide form would have other cells empty, too.
                form = shape if cells is None else shape.in_long_form()
                failures = FailureFile(
                    stack, self.failures, form, same_options=cells is None, by_header=by_header
                )
            entries = iter(rows) if cells is None else cells.leave_out(rows)
            yield Values(name, shape, good, entries, cells, failures)


@attrs.define(eq=False)
class Values:
    """The checked values of a file, out of the spool, and where the failures go.

    Iterated once: a few hundred rows are read at a time, in a thread. `good` counts the values,
    `skipped` the bad rows passed over so far, which go to the failures.
    """

    name: str
    shape: Layout
    good: int
    _entries: Iterator[Entry]
    cells: EmptyCells | None
    failures: FailureFile | None
    skipped: int = attrs.field(default=0, init=False)
    _read: deque[Item] = attrs.field(factory=deque, init=False)

    @property
    def superseded(self) -> int:
        """How many values were passed over so far, because a later cell of their key is empty."""
        return 0 if self.cells is None else self.cells.superseded

    def warn_if_none(self) -> None:
        """Warn of a file without values: an export may have failed."""
        if not self.good and (self.cells is None or not self.cells.count):
            warn(f"{self.name}: there are no values in it")

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        while not self._read:
            chunk = await anyio.to_thread.run_sync(lambda: list(islice(self._entries, _CHUNK_ROWS)))
            if not chunk:
                raise StopAsyncIteration
            for entry in chunk:
                if not isinstance(entry, BadRow):
                    self._read.append(entry)
                    continue
                self.skipped += 1
                if self.failures is not None:
                    self.failures.bad_row(entry)
        return self._read.popleft()

    def note_failure(self, item: Item, reason: str) -> None:
        """Write a value to the failures."""
        if self.failures is not None:
            self.failures.item(item, reason)

    def counts(self) -> list[tuple[str, int]]:
        """Return the rows of a summary about bad rows and empty cells."""
        rows = [("invalid and skipped", self.skipped)]
        return rows if self.cells is None else [*rows, *self.cells.counts()]


class ValuesJob(CommandJob):
    """A job over the values of a file."""

    def __init__(self, values: Values) -> None:
        self.values = values
        self.total = values.good
        self.files = () if values.failures is None else (values.failures,)
        #: The attributes of the columns of the wide form, by ascending id.
        self.attributes: list[int] = []

    async def prepare(self, store: Store) -> None:
        """Look up the names of attributes; raise `FileError` for those the store does not have."""
        named = self.values.shape.attributes
        self.attributes = sorted((await attribute_ids(store, named, self.values.name)).values())


_OPTIONS: Final = (
    click.option(
        "--empty",
        "deletes_empty",
        type=click.Choice(["skip", "delete"]),
        default="skip",
        show_default=True,
        callback=parsed(lambda given: given == "delete"),
        help="Wide form: leave empty cells alone, or delete what is stored for them.",
    ),
    click.argument("file", type=click.Path(allow_dash=True)),
    flag("--dry-run", "Show what would be done and stop there."),
    file_option(
        "--failures",
        takes_dash=True,
        text="Gets all values that were not stored, with the reason; in the form of an input.",
    ),
    flag("--skip-invalid", "Send the good rows though others are bad."),
    click.option(
        "--journal",
        type=click.Path(),
        metavar="FILE",
        help="Makes the job resumable: run the same again after it was stopped, and it goes on.",
    ),
    flag("--restart", "With --journal: discard an unfinished one and begin anew."),
    click.option(
        "--batch-by",
        type=click.Choice(["rows", "customers"]),
        default="rows",
        show_default=True,
        help="What ten of a call are. All rows of ten customers are fewer calls; rows are sent if"
        " the service refuses them.",
    ),
    flag("--yes", "Do not ask before deleting."),
    click.option(
        "--max-delete",
        metavar="N|N%",
        callback=parsed(DeletionLimit.parse),
        help="With --empty delete, or --prune of sync: refuse to delete more values than this."
        " [default: half of those of FILE, or in the scope, once that is more than 100]",
    ),
)


def value_file_options(function: F) -> F:
    """Add FILE and the shared options; the command gets them as `source`, a `ValueFile`."""
    return input_options(bundled(function, ValueFile, "source", _OPTIONS))
