"""The lines of a text file: decoded, bounded in length, counted. Under CSV and JSON Lines."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import Final

from bc_attrvals.tables.files import FileError, InputFile

#: The longest line of a table.
_LONGEST_LINE_CHARACTERS: Final = 1_000_000
#: Ctrl-Z, which editors of DOS write at the end of a file.
_END_OF_FILE: Final = "\x1a"
_LOCATE_BYTES: Final = 65_536


class Lines:
    """The lines of a text file, bounded in length; `number` counts those read so far."""

    def __init__(self, source: InputFile, encoding: str) -> None:
        self._source = source
        self._encoding = encoding
        self._text = source.text(encoding)
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            line = self._text.readline(_LONGEST_LINE_CHARACTERS + 1)
        except UnicodeError as error:
            raise self._encoding_error(error) from None
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) > _LONGEST_LINE_CHARACTERS:
            raise self.error(f"longer than {_LONGEST_LINE_CHARACTERS:,} characters")
        if line.endswith(_END_OF_FILE):
            # It has no line break, so it is the last line.
            line = line[:-1]
            if not line:
                raise StopIteration
        if "\0" in line:
            raise self.error("a NUL byte; this is no text file, or its encoding is another one")
        return line

    def error(self, message: str, line: int | None = None) -> FileError:
        """Return the error that the file is bad at a line, the last one by default."""
        return self.file_error(f"{self.place(line)}: {message}")

    def place(self, line: int | None = None) -> str:
        """Name a line, the last one by default."""
        return f"line {self.number if line is None else line:,}"

    def file_error(self, message: str) -> FileError:
        """Return the error that the file is bad as a whole."""
        return FileError(f"{self._source.name}: {message}")

    def _encoding_error(self, error: UnicodeError) -> FileError:
        name = "utf-8" if self._encoding == "utf-8-sig" else self._encoding
        if not isinstance(error, UnicodeDecodeError):
            return self.file_error(f"is not {name} ({error}); name its encoding")
        # The text layer decodes far ahead of the line it returns.
        line = 1
        handle = self._source.binary()
        decoder = codecs.getincrementaldecoder(self._encoding)()
        while True:
            block = handle.read(_LOCATE_BYTES)
            try:
                line += decoder.decode(block, final=not block).count("\n")
            except UnicodeDecodeError as found:
                good = found.object[: found.start].decode(self._encoding, "replace")
                line += good.count("\n")
                break
            if not block:
                break
        if "16" not in name and self._source.binary().read(2) in {
            codecs.BOM_UTF16_LE,
            codecs.BOM_UTF16_BE,
        }:
            return self.file_error(
                f"is not {name}; it seems to be UTF-16: name the encoding utf-16"
            )
        byte = error.object[error.start]
        return self.error(f"is not {name} (byte 0x{byte:02x}); name its encoding", line)
