"""How commands are made of options."""

from __future__ import annotations


def test_a_mistyped_command_is_guessed(served) -> None:
    assert "Did you mean 'export'?" in served.run("exprot").stderr
