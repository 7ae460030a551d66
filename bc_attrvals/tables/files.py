"""Opens input files, and puts output files in their place whole or not at all.

gzip is read wherever its first bytes show it, and written to names that end in `.gz`.
"""

from __future__ import annotations

import errno
import gzip
import io
import os
import re
import shutil
import stat
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final, Self, TypeAlias, cast

from bc_attrvals.errors import InvalidInputError
from bc_attrvals.tables.error_text import one_line

if sys.platform != "win32":
    import fcntl

STANDARD: Final = "-"


def _nothing() -> None:
    """Do nothing: a writer without anything to drop."""


#: Temporary files not yet in place. An exit that runs no `finally` removes them.
_unfinished: set[str] = set()


class FileError(InvalidInputError):
    """A file that can't be used as asked. The message is one line that names the file.

    `meant` maps missing columns to the most similar ones of the file.
    """

    def __init__(self, message: str, *, meant: Mapping[str, str] | None = None) -> None:
        super().__init__(one_line(message))
        self.meant = meant or {}


def _os_error(name: str, error: OSError | ValueError) -> FileError:
    reason = error.strerror if isinstance(error, OSError) else None
    return FileError(f"{name}: {reason or error}")


#: `collections.abc.Buffer` came with Python 3.12.
Bytes: TypeAlias = Any
_GZIP_MAGIC: Final = b"\x1f\x8b"
_DAMAGE: Final = (gzip.BadGzipFile, EOFError, zlib.error)
#: Bytes that are held in memory and compressed at once.
_GZIP_MEMBER_BYTES: Final = 1 << 20
#: First bytes of files that are mistaken for a table.
_OTHER_KINDS: Final = (
    (b"BZh", "is compressed (bzip2); unpack it first"),
    (b"\xfd7zXZ\0", "is compressed (xz); unpack it first"),
    (b"\x28\xb5\x2f\xfd", "is compressed (zstd); unpack it first"),
    (b"PK\x03\x04", "is a ZIP archive or a workbook; save it as CSV (UTF-8)"),
    (b"\xd0\xcf\x11\xe0", "is a workbook or document; save it as CSV (UTF-8)"),
    (b"PAR1", "is a Parquet file; name the format parquet"),
    (b"%PDF-", "is a PDF document"),
    (b"SQLite format 3\0", "is an SQLite database"),
)


class InputFile:
    """One open input. Each reading begins at its start; the one before it ends.

    A file that is put in its place meanwhile is not read.
    """

    def __init__(self, name: str, handle: IO[bytes]) -> None:
        self.name = name
        self._handle = handle
        self._opened = _version(handle)

    def text(self, encoding: str) -> io.TextIOWrapper:
        """Begin a reading. Line ends stay as they are.

        Raises `FileError` for an unknown encoding, and for first bytes of another kind of file.
        """
        head = self.binary().read(16)
        for begin, problem in _OTHER_KINDS:
            if head.startswith(begin):
                raise FileError(f"{self.name}: {problem}")
        try:
            # An output in this encoding is written so; some codecs have no way to.
            "x".encode(encoding, "backslashreplace")
            # utf-8-sig takes UTF-8 with a byte order mark and without.
            return io.TextIOWrapper(cast(IO[bytes], self.binary()), encoding, newline="")
        except (LookupError, UnicodeError):
            raise FileError(f"{self.name}: unknown text encoding {encoding!r}") from None

    def binary(self) -> io.BufferedIOBase:
        """Begin a reading of bytes."""
        return _View(self.name, self._handle)

    def check_unchanged(self) -> None:
        """Raise `FileError` if the file was written to since it was opened.

        Called at the end of a reading: a file that is still being written may end anywhere.
        """
        if _version(self._handle) != self._opened:
            raise FileError(f"{self.name}: was changed while it was read; run the same again")


def _version(handle: IO[bytes]) -> tuple[int, int] | None:
    """Return what changes when a file is written to: its size and the time of the last write.

    None for a file in memory or one that is not regular: a pipe is written to all the time.
    """
    try:
        status = os.fstat(handle.fileno())
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return status.st_size, status.st_mtime_ns


class _View(io.BufferedIOBase):
    """One reading of an input. Closing it leaves the input open; damage raises `FileError`."""

    def __init__(self, name: str, handle: IO[bytes]) -> None:
        self._shown = name
        self._handle = handle
        self.seek(0)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._handle.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        with self._as_file_error():
            return self._handle.seek(offset, whence)

    def read(self, size: int | None = -1, /) -> bytes:
        with self._as_file_error():
            return self._handle.read(-1 if size is None else size)

    read1 = read

    @contextmanager
    def _as_file_error(self) -> Iterator[None]:
        try:
            yield
        except _DAMAGE as error:
            raise FileError(f"{self._shown}: is damaged (gzip): {error}") from None


@contextmanager
def open_input(name: str) -> Iterator[InputFile]:
    """Open a file, or `-` for standard input. A pipe is first copied to a temporary file.

    Raises `FileError` for a directory, a device, and a file that can't be opened.
    """
    shown = "standard input" if name == STANDARD else one_line(name)
    with ExitStack() as stack:
        try:
            handle = stack.enter_context(_opened(name))
        except FileError:
            raise
        except (OSError, ValueError) as error:
            # ValueError: a NUL byte in the name.
            raise _os_error(shown, error) from None
        is_gzip = handle.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
        handle.seek(0)
        if is_gzip:
            handle = cast(IO[bytes], gzip.GzipFile(fileobj=handle))
        yield InputFile(shown, handle)


@contextmanager
def _opened(name: str) -> Iterator[IO[bytes]]:
    if name == STANDARD:
        if sys.stdin is None:
            raise FileError("standard input: is closed")
        with _spooled(sys.stdin.buffer, "standard input") as handle:
            yield handle
        return
    _check_name(name)
    with Path(name).open("rb") as handle:
        mode = os.fstat(handle.fileno()).st_mode
        if stat.S_ISREG(mode):
            yield handle
        elif stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or handle.isatty():
            with _spooled(handle, name) as copy:
                yield copy
        else:
            raise FileError(f"{name}: is a device, not a file")


@contextmanager
def _spooled(stream: IO[bytes], name: str) -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile() as copy:
        source = InputFile(name, stream)
        try:
            shutil.copyfileobj(stream, copy)
            copy.flush()
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise temporary_error(error) from None
            raise
        source.check_unchanged()
        yield copy


def temporary_error(error: OSError) -> FileError:
    """Return the error of a temporary file, which has no name, with that of its directory."""
    return _os_error(f"temporary files in {tempfile.gettempdir()}", error)


class OutputFile:
    """A file that appears, readable by its owner only, when it is `commit`ted.

    It is written beside its place and renamed into it: never through a link that stands there.
    What a killed process left there of the same file is removed. `-` is standard output, written
    as it comes. Written either through `text` or through `binary`. A name that ends in `.gz`
    makes it compressed.
    """

    def __init__(self, name: str, encoding: str = "utf-8") -> None:
        """Begin. Raises `FileError` where the file could not be put in its place."""
        self.name = name
        self.is_standard = name == STANDARD
        self._temporary: str | None = None
        self._held = ExitStack()
        binary = _buffered_stdout() if self.is_standard else self._begin(Path(name))
        if name.lower().endswith(".gz"):
            binary = io.BufferedWriter(_Gzip(binary), _GZIP_MEMBER_BYTES)
        self.binary = binary
        self.text = io.TextIOWrapper(
            binary, encoding=encoding, errors="backslashreplace", newline=""
        )
        self._writer: tuple[Callable[[], None], Callable[[], None]] | None = None
        self._flushed_bytes = 0

    def attach(self, finish: Callable[[], None], drop: Callable[[], None] = _nothing) -> None:
        """Let a writer `finish` before the file is put in its place, or `drop` what it has."""
        self._writer = finish, drop

    def _begin(self, path: Path) -> IO[bytes]:
        _check_name(self.name)
        _check_target(path)
        try:
            descriptor, self._temporary = _temporary_beside(path)
        except OSError as error:
            raise _os_error(self.name, error) from None
        _unfinished.add(self._temporary)
        if sys.platform != "win32":
            # It keeps the lock after the file is closed: else others would remove it as left over.
            self._held.callback(os.close, os.dup(descriptor))
        return os.fdopen(descriptor, "wb")

    def commit(self) -> None:
        """Put the file in its place."""
        if self._writer is not None:
            finish, _ = self._writer
            finish()
            self._writer = None
        self.text.flush()
        if self._temporary is None:
            return
        os.fsync(self.text.fileno())
        self.text.close()
        _check_target(Path(self.name))
        # It replaces a link that was put there meanwhile, and does not follow it.
        Path(self._temporary).replace(self.name)
        _unfinished.discard(self._temporary)
        self._temporary = None

    def flush(self) -> None:
        """Write the text so far to the disk, so that `commit_flushed` can keep it."""
        self.text.flush()
        if self._temporary is not None:
            self._flushed_bytes = os.lseek(self.text.fileno(), 0, os.SEEK_CUR)

    def commit_flushed(self) -> str | None:
        """After an error, put the text up to the last `flush` in place; return where it is.

        That is another file when it can't be put in place. None: nothing was flushed, or this is
        standard output.
        """
        if self._temporary is None or not self._flushed_bytes:
            return None
        temporary, self._temporary = self._temporary, None
        _unfinished.discard(temporary)
        with suppress(OSError):
            # It tries to write the rest again.
            self.text.close()
        os.truncate(temporary, self._flushed_bytes)
        try:
            _check_target(Path(self.name))
            Path(temporary).replace(self.name)
        except (OSError, FileError):
            with suppress(OSError):
                # Under its own name the next run would remove it.
                return str(Path(temporary).replace(Path(temporary).with_suffix(".kept")))
            return temporary
        return self.name

    def close(self) -> None:
        """Drop what was not committed."""
        if self._writer is not None:
            _, drop = self._writer
            drop()
            self._writer = None
        if self.is_standard:
            with suppress(ValueError, BrokenPipeError):
                # Standard output itself stays open.
                self.text.detach()
            return
        with suppress(OSError):
            self.text.close()
        if self._temporary is not None:
            with suppress(OSError):
                Path(self._temporary).unlink()
            _unfinished.discard(self._temporary)
            self._temporary = None
        self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class _Gzip(io.RawIOBase):
    """Compresses each block as a gzip member of its own: a file cut after one is whole."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._written = 0

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._file.fileno()

    def tell(self) -> int:
        return self._written

    def write(self, data: Bytes, /) -> int:
        self._file.write(gzip.compress(data, mtime=0))
        self._file.flush()
        self._written += len(data)
        return len(data)

    def close(self) -> None:
        try:
            if not self.closed and not self._written:
                # No bytes at all are no gzip file.
                self.write(b"")
            super().close()
        finally:
            self._file.close()


def _temporary_beside(path: Path) -> tuple[int, str]:
    """Return a new file beside a path, locked while it is open, with mode 600.

    Such files that no process holds the lock of were left by a kill, and are removed.
    """
    prefix, suffix = f".{path.name[:100]}.", ".tmp"
    if sys.platform == "win32":
        return tempfile.mkstemp(suffix, prefix, path.parent)
    ours = re.compile(rf"{re.escape(prefix)}[a-z0-9_]{{8}}{re.escape(suffix)}")
    with suppress(OSError):
        for one in path.parent.iterdir():
            if ours.fullmatch(one.name):
                _remove_unlocked(one)
    while True:
        descriptor, name = tempfile.mkstemp(suffix, prefix, path.parent)
        with suppress(OSError):
            # Some file systems have no locks. Nothing is removed there.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink:
            return descriptor, name
        # Another process removed it as left over before it was locked.
        os.close(descriptor)


def _remove_unlocked(path: Path) -> None:
    with suppress(OSError):
        # A pipe is not waited for, and a link not followed.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        finally:
            os.close(descriptor)


def _buffered_stdout() -> IO[bytes]:
    binary: IO[bytes] | io.RawIOBase = sys.stdout.buffer
    if isinstance(binary, io.RawIOBase):
        # PYTHONUNBUFFERED: a raw stream may write less than it is given. Opened anew, not closed.
        return os.fdopen(binary.fileno(), "wb", closefd=False)
    return binary


def _check_name(name: str) -> None:
    if not name:
        # `Path("")` is the current directory.
        raise FileError("the name of a file is empty")


def _check_target(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise _os_error(str(path), error) from None
    if stat.S_ISLNK(mode):
        raise FileError(f"{path}: is a symbolic link; name the file itself")
    if stat.S_ISDIR(mode):
        raise FileError(f"{path}: is a directory")
    if not stat.S_ISREG(mode):
        raise FileError(f"{path}: is no ordinary file; - is standard output")


def discard_unfinished() -> None:
    """Remove the temporary files of outputs not committed."""
    for name in list(_unfinished):
        with suppress(OSError):
            Path(name).unlink()
