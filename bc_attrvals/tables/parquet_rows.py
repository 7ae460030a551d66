"""Reads Parquet by batches of rows, the needed columns alone; under `rows`. Rows count from 1.

What the schema shows to be of a wrong type is refused before a row is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any, Final

from bc_attrvals.tables.arrow import Unclosed, pyarrow
from bc_attrvals.tables.files import FileError, InputFile
from bc_attrvals.tables.layout import Layout
from bc_attrvals.tables.rows import Row
from bc_attrvals.tables.text import cut, one_line

__all__ = ["MAGIC", "UNIT", "parquet_rows"]

#: What a place in a Parquet file is counted in.
UNIT: Final = "row"

#: What such a file begins and ends with.
MAGIC: Final = b"PAR1"
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
