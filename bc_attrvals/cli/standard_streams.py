"""The standard streams of the process: closed ones, and a stderr that can't be written."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any, TextIO, cast


def prepare_streams() -> None:
    """Give closed standard streams a place, and let errors of stderr end nothing.

    A file that is opened later would get the number of a closed stream, and its output. A write to
    a closed stdout fails, like one to a full disk. A stderr that is closed, full or a broken pipe
    loses its text, and the job goes on.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is this one. Nothing can be written to the second one.
            os.open(os.devnull, os.O_RDONLY if number == 1 else os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    stream = os.fdopen(2, "w", closefd=False) if sys.stderr is None else sys.stderr
    sys.stderr = cast(TextIO, _Stderr(stream))


def leave(stream: TextIO) -> None:
    """Discard what is still buffered and what follows: the exit of the process raises nothing."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


class _Stderr:
    """A text stream that discards what can't be written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            leave(self._stream)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            leave(self._stream)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - all else is the stream's own
        return getattr(self._stream, name)
