"""`fleet`: the syncs of many stores, on a Dask cluster."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from functools import partial
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any, Final, Self

import click
import msgspec

from bc_attrvals.cli.console import Refused, print_result, refuse, warn
from bc_attrvals.cli.interrupts import Stopper, run
from bc_attrvals.cli.jobs_file import read_jobs
from bc_attrvals.cli.options import command
from bc_attrvals.cli.settings import Settings, connection_options, with_settings
from bc_attrvals.fleet import EnvironmentVariable, Job, JobResult, run_jobs
from bc_attrvals.tables.error_text import counted, one_line

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table


#: The workers' variable for the URL of the shared quota.
_SHARED_QUOTA: Final = "BIGCOMMERCE_SHARED_QUOTA"
_CONNECT_S: Final = 10
_JOBS_A_WORKER: Final = 8


@command(
    "bc-attrvals fleet jobs.toml --workers 4",
    "bc-attrvals fleet jobs.toml --scheduler tcp://10.0.0.5:8786 --json",
)
@click.argument("file", metavar="JOBS.toml")
@click.option(
    "--scheduler",
    metavar="tcp://...",
    help="Address of a Dask cluster [default: one started here].",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    help="Processes of the cluster started here [default: 2].",
)
@click.option(
    "--retries",
    type=click.IntRange(0, 100),
    default=2,
    show_default=True,
    help="More tries for a job with a retryable error.",
)
@partial(connection_options, most=1)
@with_settings
def fleet(
    settings: Settings, *, file: str, scheduler: str | None, workers: int | None, retries: int
) -> None:
    """Sync the stores that JOBS.toml describes, each with the values of its file.

    \b
    [defaults]                        # for all jobs
    url = "https://api.bigcommerce.com"
    [[jobs]]
    store_hash = "abc123"
    token_env = "TOKEN_ABC123"        # a variable of the workers, never the token
    source = "abc123.csv"             # read by the worker; so are the paths of all files
    attribute_ids = [1, 2]            # the scope; also customer_ids, whole_store = true
    prune = true                      # optional, as are all that follow
    journal = "abc123.db"             # on a path all workers share: a killed job goes on
    mirror = "abc123-mirror.db"       # likewise: compare with it, for a few reads a night
    name, format, encoding, delimiter, columns, customer_column, email_column, attributes,
    attributes_by_header, allow_empty, proxy_env, trust_env

    Fields, files and folders are checked before anything starts, and without --scheduler the
    variables too. The content of files and journals, and the tokens, are checked when a job runs.
    Exit status 0: all stores are as desired; 1: some are not; 2: bad usage or input; 3: every job
    was refused, or the scheduler is out of reach.
    With --shared-quota and --scheduler the workers must have BIGCOMMERCE_SHARED_QUOTA set.
    """  # noqa: D301 - click's mark for lines left as they are
    refuse(
        scheduler is not None and not scheduler.strip(),
        "--scheduler is empty; leave it out for a cluster started here",
    )
    refuse(
        scheduler is not None and workers is not None,
        "--workers is for the cluster started here, not for --scheduler",
    )
    try:
        import distributed  # noqa: F401
    except ModuleNotFoundError:
        message = "fleet needs Dask; install it: pip install 'bc_attrvals[dask]'"
        raise click.UsageError(message) from None
    quota = _shared_quota(settings)
    jobs = read_jobs(file, shared_quota=quota)
    if scheduler is None:
        _check_variables(jobs)
    began_at = time.monotonic()
    board = _Board(settings, len(jobs))

    async def work(_: Stopper) -> None:
        if scheduler is None and settings.shared_quota:
            from bc_attrvals.shared_quota import RedisQuota

            await RedisQuota(settings.shared_quota).check()
        async with _client(scheduler, workers or 2, settings.shared_quota) as client:
            with board:
                async with aclosing(run_jobs(client, jobs, retries=retries)) as results:
                    async for result in results:
                        board.add(result)

    run(work)
    seconds = time.monotonic() - began_at
    settings.finish(
        "fleet",
        f"{counted(board.done, 'store')}: {board.good:,} as desired, "
        f"{board.done - board.good:,} not; {seconds:.1f} s.",
        {
            "jobs": len(jobs),
            "ok": board.good,
            "failed": board.done - board.good,
            "seconds": round(seconds, 3),
        },
        board.exit_status,
    )


def _shared_quota(settings: Settings) -> EnvironmentVariable | None:
    if not settings.shared_quota:
        return None
    from bc_attrvals.shared_quota.options import checked_url

    checked_url(settings.shared_quota)
    # It may hold a password, so no job holds it.
    return EnvironmentVariable(_SHARED_QUOTA)


def _check_variables(jobs: Sequence[Job]) -> None:
    """Check the variables that workers started here will inherit."""
    for index, job in enumerate(jobs):
        variable = job.access_token
        if isinstance(variable, EnvironmentVariable) and not os.environ.get(variable.name):
            message = f"jobs[{index}].token_env: the variable {variable.name} is not set"
            raise click.UsageError(message)


@asynccontextmanager
async def _client(
    scheduler: str | None, workers: int, shared_quota: str | None
) -> AsyncIterator[Any]:
    from distributed import Client, LocalCluster

    _silence("distributed")
    async with AsyncExitStack() as stack:
        address: Any = scheduler
        if scheduler is None:
            stack.enter_context(_interrupts_kept_from_children())
            address = await stack.enter_async_context(
                LocalCluster(
                    n_workers=workers,
                    threads_per_worker=_JOBS_A_WORKER,
                    host="127.0.0.1",
                    # None would start one too, on the default port.
                    dashboard_address="127.0.0.1:0",
                    scheduler_kwargs={"dashboard": False},
                    env={_SHARED_QUOTA: shared_quota} if shared_quota else None,
                    asynchronous=True,
                    silence_logs=logging.CRITICAL,
                )
            )
        client = Client(address, asynchronous=True, timeout=_CONNECT_S)
        try:
            await stack.enter_async_context(client)
        except (OSError, TimeoutError, ValueError, TypeError, ImportError) as error:
            # Garbage collection would fail to close it.
            await client.close()
            raise Refused(f"scheduler {scheduler}: {one_line(str(error))}") from None
        yield client


def _silence(name: str) -> None:
    """Silence loggers: the results of the jobs say it all."""
    # Dask sets levels of its own on some of them.
    for one in (name, *logging.root.manager.loggerDict):
        if one == name or one.startswith(f"{name}."):
            logging.getLogger(one).setLevel(logging.CRITICAL)


@contextmanager
def _interrupts_kept_from_children() -> Iterator[None]:
    """Keep Ctrl-C, which goes to the process group, from processes that are started meanwhile.

    A blocked signal stays blocked in every child from its start. Here another thread receives it,
    and the event loop handles it as always; the children are ended in order.
    """
    mask = getattr(signal, "pthread_sigmask", None)
    if mask is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    # The first child starts it, and it would unblock the signal.
    resource_tracker.ensure_running()
    done = threading.Event()
    receiving = threading.Thread(target=done.wait, daemon=True, name="receives-interrupts")
    receiving.start()
    before = mask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        mask(signal.SIG_SETMASK, before)
        done.set()
        receiving.join()


class _Board:
    """The results of the jobs: a table on a terminal, else a line for each."""

    def __init__(self, settings: Settings, total: int) -> None:
        self._settings = settings
        self._total = total
        self.done = 0
        self.good = 0
        self._refused = 0
        self._live: Live | None = None
        self._table: Table | None = None

    @property
    def exit_status(self) -> int:
        """0, 1, or 3 when each job was refused."""
        if self.good == self._total:
            return 0
        return 3 if self._refused == self._total else 1

    def __enter__(self) -> Self:
        settings = self._settings
        if not settings.quiet and not settings.json and sys.stdout.isatty():
            from rich.live import Live
            from rich.table import Table

            self._table = Table("store", "created", "updated", "deleted", "unchanged", "", "s")
            self._live = Live(self._table, refresh_per_second=4, vertical_overflow="visible")
            self._live.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._live is not None:
            self._live.stop()

    def add(self, result: JobResult) -> None:
        self.done += 1
        self.good += result.ok
        self._refused += result.refused
        report = result.report
        if result.without_shared_quota_s:
            warn(
                f"{result.job.name}: the server of the shared quota was out of reach for "
                f"{result.without_shared_quota_s:.1f} s; the job went on with a share of its own"
            )
        if self._settings.json:
            # Its times are those of all runs of a journal; the job has its own.
            fields = {} if report is None else report.to_dict()
            counts = {name: value for name, value in fields.items() if isinstance(value, int)}
            line = {
                "job": result.job.name,
                "store_hash": result.job.store_hash,
                "ok": result.ok,
                "error": _reason(result),
                "seconds": result.seconds,
                "without_shared_quota_s": round(result.without_shared_quota_s, 3),
                **counts,
            }
            print_result(msgspec.json.encode(line).decode())
            return
        if self._settings.quiet:
            return
        name, reason = one_line(result.job.name), _reason(result) or "ok"
        seconds = "" if result.seconds is None else f"{result.seconds:.1f}"
        if report is None:
            cells = ["", "", "", ""]
        else:
            updated = report.updated + report.written
            numbers = (report.created, updated, report.deleted, report.unchanged)
            cells = [f"{number:,}" for number in numbers]
        if self._table is not None:
            from rich.text import Text

            self._table.add_row(*map(Text, (name, *cells, reason, seconds)))
            return
        counted_cells = zip(("created", "updated", "deleted", "unchanged"), cells, strict=True)
        shown = ", ".join(f"{cell} {word}" for word, cell in counted_cells if cell)
        print_result(f"{self.done}/{self._total} {name}: {reason}{shown and '; ' + shown}")


def _reason(result: JobResult) -> str | None:
    if result.error is not None:
        return one_line(f"{type(result.error).__name__}: {result.error}", 300)
    report = result.report
    if report is None or report.ok:
        return None
    return f"{report.failed:,} failed, {report.not_sent:,} not sent"
