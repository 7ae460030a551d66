"""Questions before data is deleted, on a terminal."""

from __future__ import annotations

import os
import pty
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and terminals of POSIX")


@pytest.mark.parametrize(("answer", "status", "left"), [("n", 2, 3), ("y", 0, 0)])
def test_delete_asks_on_a_terminal(serve, answer, status, left) -> None:
    with serve() as served:
        served.seed((1, 1, "a"), (2, 1, "b"), (3, 1, "c"))
        ours, theirs = pty.openpty()
        process = served.start("delete", "--everything", stdin=theirs)
        os.write(ours, f"{answer}\n".encode())
        _, stderr = process.communicate(timeout=30)
        os.close(ours)
        os.close(theirs)
        assert b"Delete 3 values - every value of the store? [y/N]" in stderr
        assert process.returncode == status
        assert len(served.values()) == left
