"""Reads and writes Parquet in batches of rows; under `rows`. Rows count from 1.

pyarrow is optional, and imported when a Parquet file is read or written. A column of a wrong type
is refused before a row is read.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from types import ModuleType
from typing import IO, Any, Final

from bc_attrvals.tables.files import FileError, InputFile, OutputFile
from bc_attrvals.tables.layout import Layout
from bc_attrvals.tables.rows import Row
from bc_attrvals.tables.text import cut, one_line

__all__ = ["MAGIC", "UNIT", "ParquetRows", "parquet_rows"]

#: What a place in a Parquet file is counted in.
UNIT: Final = "row"

#: What such a file begins and ends with.
MAGIC: Final = b"PAR1"
#: Rows held in memory before they are written as a row group.
_GROUP_ROWS: Final = 50_000
_BATCH_ROWS: Final = 8_192
#: Column chunks are read by so much, whatever a row group's size.
_BUFFER_BYTES: Final = 1 << 20


def parquet_rows(source: InputFile, layout: Layout) -> Iterator[Row]:
    """Yield (row number, the needed cells in their order); None is null.

    Raises `FileError` for what is no such file: cut off or damaged, columns missing, doubled or
    of a type that is neither ids nor strings.
    """
    arrow, parquet = pyarrow(source.name)
    _check_ends(source)
    needed = layout.needed
    # pyarrow raises OSError for damaged bytes, and ValueError and others for damaged metadata.
    errors = (arrow.ArrowException, OSError, ValueError, MemoryError)
    try:
        file = parquet.ParquetFile(
            Unclosed(source.binary()),
            buffer_size=_BUFFER_BYTES,
            pre_buffer=False,
            page_checksum_verification=True,
        )
        schema = file.schema_arrow
    except errors as error:
        raise _damaged(source, error) from None
    _check_schema(arrow, schema, source, layout)
    batches = file.iter_batches(
        batch_size=_BATCH_ROWS, columns=list(dict.fromkeys(needed)), use_threads=False
    )
    done = 0
    while True:
        try:
            batch = next(batches, None)
            if batch is None:
                return
            # A name with a dot may bring columns nobody asked for.
            names = batch.schema.names
            cells = [_cells(batch.column(names.index(column))) for column in needed]
        except errors as error:
            raise _damaged(source, error) from None
        yield from enumerate(zip(*cells, strict=True), done + 1)
        done += batch.num_rows


def _check_ends(source: InputFile) -> None:
    handle = source.binary()
    begin = handle.read(len(MAGIC))
    if not begin:
        message = "the file is empty"
    elif begin not in {MAGIC, b"PARE"}:
        message = "is no Parquet file"
    else:
        handle.seek(-len(MAGIC), os.SEEK_END)
        if handle.tell() >= 2 * len(MAGIC) and handle.read() == begin:
            return
        message = "is a Parquet file cut off at its end"
    raise FileError(f"{source.name}: {message}")


def _damaged(source: InputFile, error: Exception) -> FileError:
    reason = one_line(str(error) or type(error).__name__, 200)
    return FileError(one_line(f"{source.name}: is damaged, or no usable Parquet file: {reason}"))


def _check_schema(arrow: ModuleType, schema: Any, source: InputFile, layout: Layout) -> None:  # noqa: ANN401 - untyped
    names = list(schema.names)
    columns = dict.fromkeys(layout.needed)
    missing = [column for column in columns if column not in names]
    doubled = [column for column in columns if names.count(column) > 1]
    problem = None
    if missing:
        found = cut(", ".join(names), 200)
        problem = f"column missing: {', '.join(missing)}; the file has: {found}"
    elif doubled:
        problem = f"column doubled: {', '.join(doubled)}"
    else:
        ids = {layout.customer_column}
        if not layout.wide:
            ids = {layout.columns["customer_id"], layout.columns["attribute_id"]}
        for column in columns:
            type_ = schema.field(column).type
            kind = type_.value_type if arrow.types.is_dictionary(type_) else type_
            good = _is_string(arrow, kind)
            if column in ids:
                good = good or arrow.types.is_integer(kind)
            elif layout.wide:
                # A column with no value at all has no type either.
                good = good or arrow.types.is_null(kind)
            if not good:
                wanted = "ids are integers" if column in ids else "values are strings"
                problem = f"column {column}: is of type {type_}; {wanted}"
                break
    if problem is not None:
        raise FileError(one_line(f"{source.name}: {problem}"))


def _is_string(arrow: ModuleType, kind: object) -> bool:
    types = arrow.types
    return any(
        check(kind)
        for check in (
            types.is_string,
            types.is_large_string,
            # Came with pyarrow 16.
            getattr(types, "is_string_view", types.is_string),
        )
    )


def _cells(column: Any) -> Sequence[object]:  # noqa: ANN401 - untyped
    cells: list[object]
    try:
        cells = column.to_pylist()
    except UnicodeDecodeError:
        # Nothing makes a writer keep to UTF-8: the odd cell is shown to be none.
        cells = [_cell(one) for one in column]
    return cells


def _cell(scalar: Any) -> object:  # noqa: ANN401 - untyped
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        return bytes(error.object)


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


def pyarrow(name: str) -> tuple[ModuleType, ModuleType]:
    """Return `pyarrow` and `pyarrow.parquet`; raise `FileError` for file `name` without them."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError)
        reason = "Parquet needs pyarrow" if missing else f"pyarrow can't be loaded ({error})"
        message = f"{name}: {reason}; install it: pip install 'bc_attrvals[parquet]'"
        raise FileError(message) from None
    return pa, parquet


class Unclosed(io.RawIOBase):
    """A binary file as pyarrow sees it, which closes what it is done with; ours stays open.

    After `drop` nothing is written any more: a writer that is thrown away still writes its footer.
    """

    def __init__(self, handle: IO[bytes]) -> None:
        super().__init__()
        self._handle = handle
        self._dropped = False

    def drop(self) -> None:
        """Let further writes go nowhere."""
        self._dropped = True

    def readable(self) -> bool:
        """Whether this side can be read."""
        return self._handle.readable()

    def writable(self) -> bool:
        """Whether this side can be written."""
        return self._handle.writable()

    def seekable(self) -> bool:
        """Whether places can be gone to: where it is read."""
        return self._handle.readable()

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to a place; return it."""
        return self._handle.seek(offset, whence)

    def tell(self) -> int:
        """Return the place."""
        return self._handle.tell()

    def read(self, size: int = -1, /) -> bytes:
        """Read so many bytes, all by default."""
        return self._handle.read(size)

    def write(self, data: object, /) -> int:
        """Write all of a buffer; return its size."""
        block = bytes(data)  # type: ignore[call-overload]
        if not self._dropped:
            self._handle.write(block)
        return len(block)

    def flush(self) -> None:
        """Hand on what is buffered."""
        # Called when this object is thrown away, too, which may be later than the file is closed.
        if not (self._dropped or self._handle.closed):
            self._handle.flush()
