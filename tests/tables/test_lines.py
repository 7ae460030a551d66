"""Lines are decoded, counted and bounded; a byte that is no text is named by its line."""

from __future__ import annotations

import io

import pytest

from bc_attrvals.tables.files import FileError, InputFile
from bc_attrvals.tables.lines import Lines


def lines(content: bytes, encoding: str = "utf-8-sig") -> list[str]:
    return list(Lines(InputFile("memory", io.BytesIO(content)), encoding))


def test_ends_of_lines_stay_and_the_mark_goes() -> None:
    content = "\ufeffa\r\nb\rc\n\x0b\u2028d".encode()
    assert lines(content) == ["a\r\n", "b\r", "c\n", "\x0b\u2028d"]
    assert lines("ä\nö".encode("utf-16"), "utf-16") == ["ä\n", "ö"]


@pytest.mark.parametrize("content", [b"a\n\x1a", b"a\n"])
def test_ctrl_z_at_the_end_is_none(content) -> None:
    assert lines(content) == ["a\n"]
    assert lines(b"\x1a") == []
    assert lines(b"\x1a\na\x1ab\x1a") == ["\x1a\n", "a\x1ab"]


@pytest.mark.parametrize("before", [0, 1, 9_999, 100_000])
def test_a_bad_byte_is_named_by_its_line(before) -> None:
    with pytest.raises(
        FileError, match=rf"memory: line {before + 1:,}: is not utf-8 \(byte 0xff\)"
    ):
        lines("ä\n".encode() * before + b"\xff\n")


def test_a_line_without_end_is_refused_in_bounded_memory() -> None:
    with pytest.raises(FileError, match="line 2: longer than 1,000,000 characters"):
        lines(b"a\n" + b"x" * 3_000_000)
    with pytest.raises(FileError, match="line 1: a NUL byte"):
        lines(b"\0\n")
