"""Reads and writes Parquet in batches of rows; under `rows`. Rows count from 1.

pyarrow is optional, and imported when a Parquet file is read or written. A column of a wrong type
is refused before a row is read.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import IO, Any, Final

from bc_attrvals.tables.arrow import (
    UNIT,
    arrow_batch,
    arrow_rows,
    arrow_schema,
    checked_layout,
    pyarrow,
)
from bc_attrvals.tables.error_text import one_line
from bc_attrvals.tables.files import Bytes, FileError, InputFile, OutputFile
from bc_attrvals.tables.layout import Layout
from bc_attrvals.tables.rows import Row, Table

#: What such a file begins and ends with.
MAGIC: Final = b"PAR1"
_ENCRYPTED: Final = b"PARE"
#: Rows held in memory before they are written as a row group.
_GROUP_ROWS: Final = 50_000
_BATCH_ROWS: Final = 8_192
#: Column chunks are read in parts of this size, whatever a row group's size.
_BUFFER_BYTES: Final = 1 << 20


def parquet_table(source: InputFile, layout: Layout) -> Table:
    """Return the rows of a Parquet file, only the needed columns.

    Raises `FileError` for a file that is cut off or damaged, whose columns are missing, doubled or
    of a type that fits no cell; at once or from the rows.
    """
    arrow, parquet = pyarrow(source.name)
    _check_ends(source)
    # pyarrow raises OSError for damaged bytes, and ValueError and others for damaged metadata.
    errors = (arrow.ArrowException, OSError, ValueError, OverflowError, MemoryError)
    try:
        file = parquet.ParquetFile(
            source.binary(),
            buffer_size=_BUFFER_BYTES,
            pre_buffer=False,
            page_checksum_verification=True,
        )
        schema = file.schema_arrow
    except errors as error:
        raise _damaged(source, error) from None
    fitted = checked_layout(arrow, schema, source.name, layout)
    wanted = [name for name in schema.names if name.strip() in fitted.needed]
    batches = file.iter_batches(batch_size=_BATCH_ROWS, columns=wanted, use_threads=False)

    def rows() -> Iterator[Row]:
        try:
            yield from arrow_rows(arrow, batches, fitted)
        except errors as error:
            raise _damaged(source, error) from None

    return Table(fitted, rows(), UNIT)


def _check_ends(source: InputFile) -> None:
    handle = source.binary()
    begin = handle.read(len(MAGIC))
    if not begin:
        message = "the file is empty"
    elif begin not in {MAGIC, _ENCRYPTED}:
        message = "is no Parquet file"
    else:
        handle.seek(-len(MAGIC), os.SEEK_END)
        if handle.tell() >= 2 * len(MAGIC) and handle.read() == begin:
            return
        message = "is a Parquet file cut off at its end"
    raise FileError(f"{source.name}: {message}")


def _damaged(source: InputFile, error: Exception) -> FileError:
    if isinstance(error, FileError):
        return error
    reason = one_line(str(error) or type(error).__name__, 200)
    return FileError(f"{source.name}: is damaged, or no usable Parquet file: {reason}")


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
        self._schema = arrow_schema(self._arrow, columns, ids=ids, moments=moments)
        self._sink = _Sink(file.binary)
        self._writer: Any = parquet.ParquetWriter(self._sink, self._schema)
        self._rows: list[Sequence[object]] = []
        file.attach(self.finish, self.drop)

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
        """Stop writing: what is not written yet is dropped."""
        self._sink.drop()
        # The writer may be broken already.
        with suppress(self._arrow.ArrowException, OSError, ValueError):
            self._writer.close()

    def _flush(self) -> None:
        if not self._rows:
            return
        self._writer.write_batch(arrow_batch(self._arrow, self._schema, self._rows))
        self._rows = []


class _Sink(io.RawIOBase):
    """An output as pyarrow sees it, which closes what it is done with; ours stays open.

    After `drop` nothing is written: a discarded writer still writes its footer.
    """

    def __init__(self, handle: IO[bytes]) -> None:
        self._handle = handle
        self._dropped = False

    def drop(self) -> None:
        self._dropped = True

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._handle.tell()

    def write(self, data: Bytes, /) -> int:
        block = bytes(data)
        if not self._dropped:
            self._handle.write(block)
        return len(block)

    def flush(self) -> None:
        # Also called when this object is collected, which may be after the file is closed.
        if not (self._dropped or self._handle.closed):
            self._handle.flush()
