"""How many instructions does a page or a PUT take? The load of the machine does not change them.

Counted by valgrind, where it is installed: a long run less a short one, after a first run of each.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.cpu import BY_HAND, STREAM, UPSERT, contenders
from benchmarks.harness import Child, answer_all, trusting
from benchmarks.page_server import PageServer

#: By the kind of call: calls of the short and of the long run, and the contender. Both listings
#: open all their connections, because a page takes long under valgrind.
_KINDS = {"page": (60, 120, STREAM), "put": (60, 260, UPSERT)}


def _each(server: PageServer, folder: str, kind: str) -> dict[str, Any]:
    """Count both contenders in one process, because valgrind takes long to start."""
    few, many, ours = _KINDS[kind]
    out = Path(folder, kind)
    under = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}"]
    variables = {"PYTHONHASHSEED": "0", **trusting(server.ca_file)}
    with Child("benchmarks.instructions", under=[*under, "--quiet"], **variables) as child:

        def control(*command: str) -> None:
            vgdb = ("vgdb", f"--pid={child.process.pid}", *command)
            subprocess.run(vgdb, check=True, capture_output=True)

        def count(number: int, name: str, calls: int) -> int:
            child.ask(server.tls_url, kind, name, calls)
            control("dump")
            text = Path(f"{out}.{number}").read_text(encoding="utf-8")
            return int(re.findall(r"^totals: (\d+)", text, re.MULTILINE)[-1])

        for name in (BY_HAND, ours):
            # Loads what is imported on first need, at full speed.
            child.ask(server.tls_url, kind, name, 1)
        control("instrumentation", "on")
        runs = [(name, calls) for name in (BY_HAND, ours) for calls in (few, many)]
        counts = [count(number, *run) for number, run in enumerate(runs, 1)]
        # The interpreter takes long to exit, too.
        child.process.kill()
    by_hand, own = ((counts[at + 1] - counts[at]) / (many - few) for at in (0, 2))
    print(f"a {kind}: {own / 1e3:,.0f} k, {own / by_hand:.2f} of by hand", flush=True)
    return {"by_hand": round(by_hand), "ours": round(own), "ratio": round(own / by_hand, 3)}


def measure(*, quick: bool = False) -> dict[str, Any]:
    """Measure; see the module."""
    if quick or not shutil.which("vgdb"):
        return {}
    with PageServer() as server, TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        return dict(zip(_KINDS, pool.map(partial(_each, server, folder), _KINDS), strict=True))


if __name__ == "__main__":
    answer_all(lambda url, kind, name, calls: contenders(url, kind, calls)[name]())
