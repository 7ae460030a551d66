"""The optional pyarrow, loaded when a Parquet file is read or written and never before."""

from __future__ import annotations

import io
from types import ModuleType
from typing import IO

from bc_attrvals.tables.files import FileError

__all__ = ["Unclosed", "pyarrow"]


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
