"""Writes rows as Parquet, a batch at a time; the footer comes when the file is committed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, Final

from bc_attrvals.tables.arrow import Unclosed, pyarrow
from bc_attrvals.tables.files import OutputFile

__all__ = ["ParquetRows"]

#: A row group; so much is held in memory.
_GROUP_ROWS: Final = 50_000


class ParquetRows:
    """Rows of a Parquet file: `ids` as int64, `moments` as UTC timestamps, all else strings.

    Blocks. Raises `FileError` without pyarrow.
    """

    def __init__(
        self,
        file: OutputFile,
        columns: Sequence[str],
        *,
        ids: Sequence[str],
        moments: Sequence[str] = (),
    ) -> None:
        self._arrow, parquet = pyarrow(file.name)
        arrow = self._arrow
        types = {name: arrow.timestamp("us", tz="UTC") for name in moments}
        types |= {name: arrow.int64() for name in ids}
        fields = [(name, types.get(name, arrow.string())) for name in columns]
        self._schema = arrow.schema(fields)
        self._sink = Unclosed(file.binary)
        self._writer: Any = parquet.ParquetWriter(self._sink, self._schema)
        self._rows: list[Sequence[object]] = []
        file.attach(self)

    def write(self, rows: Iterable[Sequence[object]]) -> None:
        """Write rows; None is null."""
        self._rows.extend(rows)
        if len(self._rows) >= _GROUP_ROWS:
            self._flush()

    def finish(self) -> None:
        """Write what is left, and the footer."""
        self._flush()
        self._writer.close()
        self._sink.drop()

    def drop(self) -> None:
        """Write nothing any more."""
        self._sink.drop()
        # It may be broken already: that is why it is dropped.
        with suppress(self._arrow.ArrowException, OSError, ValueError):
            self._writer.close()

    def _flush(self) -> None:
        if not self._rows:
            return
        columns = [
            self._arrow.array(cells, type=field.type)
            for cells, field in zip(zip(*self._rows, strict=True), self._schema, strict=True)
        ]
        self._rows = []
        self._writer.write_batch(self._arrow.RecordBatch.from_arrays(columns, schema=self._schema))
