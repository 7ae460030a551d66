"""Text for error messages stays on one line and short."""

from __future__ import annotations

from bc_attrvals.tables.error_text import counted, cut, one_line


def test_text_of_others_is_one_printable_line() -> None:
    assert one_line("a\nb\x1b[2J\u202e") == "a b [2J "
    assert one_line("x" * 50, 10) == "x" * 9 + "…"
    assert cut("a\n") == "'a\\n'"
    assert len(cut("x" * 999)) == 42


def test_counts() -> None:
    assert [counted(n, "value") for n in (1, 1_234)] == ["1 value", "1,234 values"]
