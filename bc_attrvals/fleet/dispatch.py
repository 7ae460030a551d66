"""`run_jobs`: submits the jobs of a fleet to Dask, and yields the result of each as it ends."""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from typing import TYPE_CHECKING, Final

import attrs

from bc_attrvals.errors import InvalidInputError
from bc_attrvals.fleet.jobs import Job, JobResult
from bc_attrvals.fleet.worker import work

if TYPE_CHECKING:
    from distributed import Client, Future


#: How a task is named in Dask's logs and dashboard, before the job's name.
_PREFIX: Final = "bc-attrvals-sync"


async def run_jobs(
    client: Client,
    jobs: Iterable[Job],
    *,
    retries: int = 2,
    workers: str | Iterable[str] | None = None,
    allow_other_workers: bool = False,
) -> AsyncGenerator[JobResult]:
    """Yield one `JobResult` for each job, in the order they end.

    `client` is a `dask.distributed.Client(asynchronous=True)`; `retries`, `workers` and
    `allow_other_workers` are those of its `submit`. As many jobs run at once on a worker as it has
    threads, though they run in its event loop. A job that fails ends no other: its result has the
    error, after `retries` more tries where the error is retryable.

    Jobs on one store (the same hash and URL) run one at a time, in the order given, unless all of
    them have the same `shared_quota` and `namespace`.

    Closing the generator early cancels what is not done. Jobs that are running stop within half a
    second; calls that are on the wire may be applied. Raises `InvalidInputError` for a client that
    is not asynchronous, or an item that is no `Job`, before any job is submitted.
    """
    chains = _chained(client, jobs)
    running: dict[asyncio.Task[JobResult], tuple[Future, deque[Job]]] = {}
    ended: asyncio.Queue[asyncio.Task[JobResult]] = asyncio.Queue()

    def submit_next(chain: deque[Job]) -> None:
        job = chain.popleft()
        key = f"{_PREFIX}-{job.name}-{uuid.uuid4().hex}"
        future = client.submit(
            work,
            job,
            key,
            key=key,
            retries=retries,
            workers=workers,
            allow_other_workers=allow_other_workers,
            pure=False,
        )
        waiting = asyncio.ensure_future(_result_of(job, future))
        waiting.add_done_callback(ended.put_nowait)
        running[waiting] = future, chain

    try:
        for chain in chains:
            submit_next(chain)
        while running:
            waiting = await ended.get()
            future, chain = running.pop(waiting)
            # Lets the cluster forget the result.
            future.release()
            if chain:
                submit_next(chain)
            yield waiting.result()
    finally:
        for waiting in running:
            waiting.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if running:
            await client.cancel([future for future, _ in running.values()], force=True)


def _chained(client: Client, jobs: Iterable[Job]) -> list[deque[Job]]:
    """Return the jobs in chains; the jobs of a chain run one after the other."""
    if not getattr(client, "asynchronous", False):
        message = "client must be a dask.distributed.Client(asynchronous=True)"
        raise InvalidInputError(message, field="client")
    stores: dict[tuple[str, str], list[Job]] = {}
    for index, job in enumerate(jobs):
        if not isinstance(job, Job):
            message = f"expected Job, got {type(job).__name__}"
            raise InvalidInputError(message, field="jobs", place=f"jobs[{index}]")
        stores.setdefault(job.store, []).append(job)
    chains: list[deque[Job]] = []
    for same in stores.values():
        quotas = {(job.shared_quota, job.namespace) for job in same}
        # Jobs that share a quota do not exceed it together.
        if same[0].shared_quota is not None and len(quotas) == 1:
            chains += [deque([job]) for job in same]
        else:
            chains.append(deque(same))
    return chains


async def _result_of(job: Job, future: Future) -> JobResult:
    try:
        done: JobResult = await future
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        return JobResult(job=job, error=RuntimeError("the task was cancelled in the cluster"))
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        # These are raised in this process; a worker returns none of them.
        raise
    except BaseException as error:  # noqa: BLE001 - it is the result of that job
        # The frames are the worker's, and useless here.
        return JobResult(job=job, error=error.with_traceback(None))
    # With the caller's own job in place of its copy.
    return attrs.evolve(done, job=job)
