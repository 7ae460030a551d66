"""Files in and out: what is read can be read twice, what is written appears whole or not at all."""

from __future__ import annotations

import io
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Final, Self, cast

import click

__all__ = ["FileError", "InputFile", "OutputFile", "discard_unfinished", "open_input"]

STANDARD: Final = "-"

# Temporary files not yet in place, for the exit that runs no `finally`.
_unfinished: set[str] = set()


class FileError(click.ClickException):
    """A file that can't be used as asked; one line, exit status 2."""

    exit_code = 2


def _os_error(name: str, error: OSError) -> FileError:
    return FileError(f"{name}: {error.strerror or error}")


class InputFile:
    """One input, open, to be read from its start as often as wanted, one reading at a time.

    The same open file serves all readings, so that one replaced meanwhile does no harm.
    """

    def __init__(self, name: str, handle: IO[bytes]) -> None:
        self.name = name
        self._handle = handle

    def text(self, encoding: str) -> io.TextIOWrapper:
        """Begin a reading. Line ends stay as they are."""
        self._handle.seek(0)
        try:
            layer = cast(IO[bytes], _Undivided(self._handle))
            # utf-8-sig takes UTF-8 with a byte order mark and without.
            return io.TextIOWrapper(layer, encoding=encoding, newline="")
        except LookupError:
            raise FileError(f"unknown text encoding {encoding!r}") from None

    def binary(self) -> IO[bytes]:
        """Begin a reading of bytes."""
        self._handle.seek(0)
        return self._handle


class _Undivided(io.BufferedIOBase):
    """The readable side of a file that a text layer may close without closing the file."""

    def __init__(self, handle: IO[bytes]) -> None:
        self._file = handle

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        return self._file.read(-1 if size is None else size)

    def read1(self, size: int = -1, /) -> bytes:
        return self._file.read(size)


@contextmanager
def open_input(name: str) -> Iterator[InputFile]:
    """Open a file, or `-` for standard input, which is first copied to a temporary file.

    Raises `FileError` for a directory, a device, and what can't be opened.
    """
    with ExitStack() as stack:
        try:
            handle = stack.enter_context(_opened(name))
        except OSError as error:
            raise _os_error(name, error) from None
        yield InputFile("standard input" if name == STANDARD else name, handle)


@contextmanager
def _opened(name: str) -> Iterator[IO[bytes]]:
    if name == STANDARD:
        with _spooled(sys.stdin.buffer) as handle:
            yield handle
        return
    with Path(name).open("rb") as handle:
        mode = os.fstat(handle.fileno()).st_mode
        if stat.S_ISREG(mode):
            yield handle
        elif stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or handle.isatty():
            with _spooled(handle) as copy:
                yield copy
        else:
            raise FileError(f"{name}: is a device, not a file")


@contextmanager
def _spooled(stream: IO[bytes]) -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(stream, copy)
        yield copy


class OutputFile:
    """A text file (UTF-8) that appears, readable by its owner only, when it is `commit`ted.

    It is written beside its place and renamed into it: never through a link that stands there.
    `-` is standard output, written as it comes.
    """

    def __init__(self, name: str) -> None:
        """Begin. Raises `FileError` where the file could not be put in the end."""
        self.name = name
        self.is_standard = name == STANDARD
        self._temporary: str | None = None
        binary = _buffered_stdout() if self.is_standard else self._begin(Path(name))
        self.text = io.TextIOWrapper(binary, encoding="utf-8", newline="")

    def _begin(self, path: Path) -> IO[bytes]:
        _check_target(path)
        try:
            # Exclusively created with mode 600.
            descriptor, self._temporary = tempfile.mkstemp(
                prefix=f".{path.name[:100]}.", suffix=".tmp", dir=path.parent
            )
        except OSError as error:
            raise _os_error(self.name, error) from None
        _unfinished.add(self._temporary)
        return os.fdopen(descriptor, "wb")

    def commit(self) -> None:
        """Put the file in its place."""
        self.text.flush()
        if self._temporary is None:
            return
        os.fsync(self.text.fileno())
        self.text.close()
        _check_target(Path(self.name))
        # It replaces a link planted since, and does not follow it.
        Path(self._temporary).replace(self.name)
        _unfinished.discard(self._temporary)
        self._temporary = None

    def close(self) -> None:
        """Drop what was not committed."""
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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _buffered_stdout() -> IO[bytes]:
    binary: IO[bytes] | io.RawIOBase = sys.stdout.buffer
    if isinstance(binary, io.RawIOBase):
        # PYTHONUNBUFFERED: a raw stream may write less than it is given. Opened anew, not closed.
        return os.fdopen(binary.fileno(), "wb", closefd=False)
    return binary


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
