"""FILE and the options that `sync` and `upsert` share: described, checked and opened here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import Any, Final, Literal, TypeVar

import anyio.to_thread
import attrs
import click

from bc_attrvals.cli.asking import need_terminal
from bc_attrvals.cli.attribute_names import attribute_ids
from bc_attrvals.cli.checking import check_values
from bc_attrvals.cli.emptying import EmptyCells
from bc_attrvals.cli.failures import FailureFile
from bc_attrvals.cli.file_options import DELETE, FileOptions, bundled, empty_option, input_options
from bc_attrvals.cli.output_rows import RowFile
from bc_attrvals.cli.paths import check_paths
from bc_attrvals.cli.settings import Settings, warn
from bc_attrvals.core.limits import Limits
from bc_attrvals.core.named_value import Item
from bc_attrvals.store import Store
from bc_attrvals.tables.files import STANDARD, open_input
from bc_attrvals.tables.layout import Layout, file_format
from bc_attrvals.tables.reading import resolved_layout
from bc_attrvals.tables.rows import BadRow, Entry

F = TypeVar("F", bound=Callable[..., Any])

_CHUNK_ROWS: Final = 500


@attrs.frozen(kw_only=True)
class ValueFile:
    """FILE and its options, as they were given."""

    file: str
    options: FileOptions
    empty: str
    failures: str | None
    skip_invalid: bool
    journal: str | None
    restart: bool
    dry_run: bool
    yes: bool
    batch_by: Literal["rows", "customers"] = "rows"

    @property
    def limits(self) -> Limits:
        """The limits of the Store, with what a call counts."""
        return Limits(batch_by=self.batch_by)

    @property
    def asks(self) -> bool:
        """Whether to ask before deleting."""
        return not (self.yes or self.dry_run)

    @property
    def deletes_empty(self) -> bool:
        """Whether empty cells are values to delete."""
        return self.empty == DELETE

    def check(
        self,
        settings: Settings,
        *,
        prune: bool = False,
        outputs: Iterable[tuple[str, str | None]] = (),
        databases: Iterable[tuple[str, str | None]] = (),
    ) -> Layout:
        """Return the layout of the file.

        `outputs` are others than the failures, `databases` others than the journal.

        Raises `click.UsageError` or `FileError` for options that do not go together. Nothing was
        read then.
        """
        shape = self.options.input_layout(self.file)
        if self.deletes_empty and not shape.wide:
            raise click.UsageError("--empty delete goes with --wide")
        if self.deletes_empty and not shape.by_id:
            raise click.UsageError("--empty delete needs --customer-column and attribute ids")
        if prune or self.deletes_empty:
            need_terminal(yes=not self.asks, stdin_taken=self.file == STANDARD, what="deletes")
        if self.restart and self.journal is None:
            raise click.UsageError("--restart goes with --journal")
        written = [("--failures", self.failures), *outputs]
        check_paths([("FILE", self.file)], written, [("--journal", self.journal), *databases])
        for words, path in written:
            if path == STANDARD and settings.json:
                raise click.UsageError(f"--json and {words} can't share stdout")
            if path is not None:
                file_format(path, None)
        return shape

    @contextmanager
    def opened(self, settings: Settings, shape: Layout) -> Iterator[Values]:
        """Open the file and read it once, to check every row; the rows are kept in a spool.

        Raises `FileError` for a bad file, and `BadInput` for bad rows unless they are skipped.
        """
        with ExitStack() as stack:
            source = stack.enter_context(open_input(self.file))
            cells = stack.enter_context(EmptyCells()) if self.deletes_empty else None
            by_header = shape.attributes_by_header
            with self.options.hinted():
                shape = resolved_layout(source, shape)
            checked = check_values(
                source,
                shape,
                settings,
                stack,
                skip_invalid=self.skip_invalid,
                empty_cells=cells,
            )
            failures = None
            if self.failures is not None:
                # A row of the wide form would have other cells empty, too.
                form = shape.in_long_form() if self.deletes_empty else shape
                same = not self.deletes_empty
                failures = FailureFile(
                    stack, self.failures, form, same_options=same, by_header=by_header
                )
            yield Values(
                source.name,
                checked.good,
                iter(checked.rows),
                shape,
                cells=cells,
                failures=failures,
            )


class Values:
    """The checked values of a file, out of the spool in chunks, and where the failures go.

    `good` counts the values, `skipped` the bad rows passed over so far.
    """

    def __init__(
        self,
        name: str,
        good: int,
        entries: Iterator[Entry],
        shape: Layout,
        *,
        cells: EmptyCells | None,
        failures: FailureFile | None,
    ) -> None:
        self.name = name
        self.good = good
        self.skipped = 0
        self.cells = cells
        self._entries = entries
        #: Whether customers or attributes are given by address or name.
        self.is_named = not shape.by_id
        self._attributes = shape.attributes
        self._failures = failures

    def warn_if_none(self) -> None:
        """Warn of a file without values: an export may have failed."""
        if not self.good and (self.cells is None or not self.cells.count):
            warn(f"{self.name}: there are no values in it")

    @property
    def files(self) -> Sequence[RowFile]:
        """The outputs."""
        return () if self._failures is None else (self._failures,)

    async def attribute_ids(self, store: Store) -> list[int]:
        """Return the attributes of the columns of the wide form, by ascending id.

        Raises `FileError` for names that the store does not have, with the nearest ones.
        """
        return sorted((await attribute_ids(store, self._attributes, self.name)).values())

    async def next_chunk(self) -> list[Item] | None:
        """Return the next values; None at the end. Bad rows go to the failures."""
        chunk = await anyio.to_thread.run_sync(lambda: list(islice(self._entries, _CHUNK_ROWS)))
        values: list[Item] = []
        for entry in chunk:
            if isinstance(entry, BadRow):
                self.skipped += 1
                if self._failures is not None:
                    self._failures.bad_row(entry)
            else:
                values.append(entry)
        return values if chunk else None

    def note_failure(self, item: Item, reason: str) -> None:
        """Write a value to the failures."""
        if self._failures is not None:
            self._failures.item(item, reason)

    def counts(self) -> list[tuple[str, int]]:
        """Return the rows of a summary about bad rows and empty cells."""
        rows = [("invalid and skipped", self.skipped)]
        return rows if self.cells is None else [*rows, *self.cells.counts()]


_OPTIONS: Final = (
    click.argument("file", type=click.Path(allow_dash=True)),
    click.option("--dry-run", is_flag=True, help="Show what would be done and stop there."),
    click.option(
        "--failures",
        type=click.Path(allow_dash=True),
        metavar="FILE",
        help="Gets all values that were not stored, with the reason; fit to be given in again.",
    ),
    click.option("--skip-invalid", is_flag=True, help="Send the good rows though others are bad."),
    click.option(
        "--journal",
        type=click.Path(),
        metavar="FILE",
        help="Makes the job resumable: run the same again after it was stopped, and it goes on.",
    ),
    click.option(
        "--restart", is_flag=True, help="With --journal: discard an unfinished one and begin anew."
    ),
    click.option(
        "--batch-by",
        type=click.Choice(["rows", "customers"]),
        default="rows",
        show_default=True,
        help="What ten of a call are. All rows of ten customers are fewer calls; rows are sent if"
        " the service refuses them.",
    ),
    click.option("--yes", is_flag=True, help="Do not ask before deleting."),
)


def value_file_options(function: F) -> F:
    """Add FILE and the shared options; the command gets them as `source`, a `ValueFile`."""
    return input_options(empty_option(bundled(function, ValueFile, "source", _OPTIONS)))
