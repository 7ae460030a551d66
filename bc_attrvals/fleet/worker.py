"""One job of a fleet, on a worker: a coroutine that Dask runs in the worker's own event loop.

Between `dispatch.py`, which submits it, and the Store. Retryable errors are raised, so that Dask
tries again; others are returned. A task that Dask has dropped is stopped here, because Dask lets
coroutines run to their end.
"""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator
from contextlib import aclosing, contextmanager, nullcontext
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from bc_attrvals.core.named_value import Item
from bc_attrvals.errors import (
    AuthenticationError,
    InvalidInputError,
    JournalError,
    MirrorError,
    NotFoundError,
    PermissionDeniedError,
    StoreSuspendedError,
)
from bc_attrvals.events import Event, SharedQuotaLost, SharedQuotaRegained
from bc_attrvals.fleet.jobs import FileSource, Job, JobResult
from bc_attrvals.store import Store
from bc_attrvals.sync.report import SyncReport

P = ParamSpec("P")
T = TypeVar("T")

if TYPE_CHECKING:
    from distributed import Worker


#: Interval of the check whether Dask still wants a running task.
_LOOK_S: Final = 0.25
#: Interval and limit of the retries for a journal or mirror that another job holds.
_JOURNAL_RETRY_S: Final = 0.25
_JOURNAL_PATIENCE_S: Final = 120.0
_CHUNK_ROWS: Final = 1_000

#: Errors that are not retryable.
_FINAL: Final = (
    InvalidInputError,
    AuthenticationError,
    PermissionDeniedError,
    NotFoundError,
    StoreSuspendedError,
    JournalError,
    MirrorError,
)


class _DegradedTime:
    """How long the server of the shared quota was out of reach, by the events of a Store."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._since: float | None = None

    @property
    def seconds(self) -> float:
        since = self._since
        return self._seconds + (0.0 if since is None else time.monotonic() - since)

    def hear(self, event: Event) -> None:
        if isinstance(event, SharedQuotaLost) and self._since is None:
            self._since = time.monotonic()
        elif isinstance(event, SharedQuotaRegained):
            self.end()

    def end(self) -> None:
        self._seconds, self._since = self.seconds, None


async def work(job: Job, key: str) -> JobResult:
    """Run a job as the task `key`; raise retryable errors.

    Report and error are both None where Dask had dropped the task.
    """
    from distributed import get_worker

    worker = get_worker()
    began_at = time.monotonic()
    degraded = _DegradedTime()
    running = asyncio.create_task(_run(job, degraded))
    report = error = None
    try:
        while not (await asyncio.wait([running], timeout=_LOOK_S))[0]:
            if not _is_wanted(worker, key):
                break
        else:
            report = running.result()
    except _FINAL as final:
        if isinstance(final, JournalError | MirrorError) and _is_held(final):
            raise
        error = final
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    return JobResult(
        job=job,
        report=report,
        error=error,
        seconds=time.monotonic() - began_at,
        worker=worker.address,
        without_shared_quota_s=degraded.seconds,
    )


def _is_wanted(worker: Worker, key: str) -> bool:
    task = worker.state.tasks.get(key)
    return task is not None and task.state != "cancelled"


async def _run(job: Job, degraded: _DegradedTime) -> SyncReport:
    gives_up_at = time.monotonic() + _JOURNAL_PATIENCE_S
    while True:
        try:
            return await _sync(job, degraded)
        except (JournalError, MirrorError) as error:
            if not _is_held(error) or time.monotonic() >= gives_up_at:
                raise
        # A worker that Dask has given up holds it, and still runs or is about to die.
        await asyncio.sleep(_JOURNAL_RETRY_S)


def _is_held(error: JournalError | MirrorError) -> bool:
    code = getattr(error.__cause__, "sqlite_errorcode", 0)
    return code & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


async def _sync(job: Job, degraded: _DegradedTime) -> SyncReport:
    token = await _call_in_thread(job.access_token.resolve, job.store_hash)
    proxy = quota = None
    if job.proxy is not None:
        proxy = await _call_in_thread(job.proxy.resolve, job.store_hash)
    if job.shared_quota is not None:
        from bc_attrvals.shared_quota import RedisQuota

        url = await _call_in_thread(job.shared_quota.resolve, job.store_hash)
        quota = RedisQuota(url, namespace=job.namespace)
    store = Store(
        job.store_hash,
        token,
        base_url=job.base_url,
        limits=job.limits,
        timeout=job.timeout_s,
        quota=quota,
        proxy=proxy,
        trust_env=job.trust_env,
    )
    store.subscribe(degraded.hear)
    try:
        async with (
            store,
            nullcontext() if job.mirror is None else store.mirror(job.mirror, job.scope) as mirror,
            aclosing(_items(job)) as items,
        ):
            return await store.attribute_values.sync(
                items,
                scope=job.scope,
                prune=job.prune,
                journal=job.journal,
                allow_empty=job.allow_empty,
                mirror=mirror,
            )
    finally:
        degraded.end()


async def _items(job: Job) -> AsyncGenerator[Item]:
    """Yield the desired values; a sync source is read in a thread, so that it does not block."""
    if isinstance(job.source, FileSource):
        values: Any = _file_values(job.source)
    else:
        values = await _call_in_thread(job.source.call, job.store_hash)
        if inspect.iscoroutine(values):
            with _as_ordinary_error():
                values = await values
    if isinstance(values, AsyncIterable):
        async with aclosing(_guarded(values)) as guarded:
            async for value in guarded:
                yield value
        return
    if not isinstance(values, Iterable):
        message = f"source must give an iterable, not {type(values).__name__}"
        raise InvalidInputError(message, field="source")
    iterator = await _call_in_thread(iter, values)
    try:
        while chunk := await _call_in_thread(lambda: list(islice(iterator, _CHUNK_ROWS))):
            for value in chunk:
                yield value
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            with _as_ordinary_error():
                close()


async def _guarded(values: AsyncIterable[Any]) -> AsyncGenerator[Any]:
    # Not around the `yield`, where a GeneratorExit does not come from the source.
    with _as_ordinary_error():
        iterator = aiter(values)
    try:
        while True:
            with _as_ordinary_error():
                try:
                    value = await anext(iterator)
                except StopAsyncIteration:
                    return
            yield value
    finally:
        close = getattr(iterator, "aclose", None)
        if close is not None:
            with _as_ordinary_error():
                await close()


async def _call_in_thread(call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function of the user in a thread; see `_as_ordinary_error`."""

    def guarded() -> T:
        with _as_ordinary_error():
            return call(*args, **kwargs)

    return await asyncio.to_thread(guarded)


@contextmanager
def _as_ordinary_error() -> Iterator[None]:
    """Turn an exception that would end more than its job into an ordinary error.

    A thread can't pass a StopIteration on, SystemExit would end the worker, and a BaseException (a
    group of them, a panic of an extension) is not caught by what waits for the job.
    """
    try:
        yield
    except asyncio.CancelledError:
        task = _task()
        if task is not None and task.cancelling():
            raise
        name = "CancelledError"
    except (StopIteration, StopAsyncIteration) as error:
        name = type(error).__name__
    except Exception:
        raise
    except BaseException as error:  # noqa: BLE001 - it ends that job
        name = type(error).__name__
    else:
        return
    raise RuntimeError(f"the source or a reference of the job raised {name}")


def _task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # in a thread
        return None


def _file_values(source: FileSource) -> Iterator[Item]:
    """Yield the values of a file; raise `InvalidInputError` where it is bad."""
    from bc_attrvals.tables.files import FileError, open_input
    from bc_attrvals.tables.layout import file_format
    from bc_attrvals.tables.reader import read_values
    from bc_attrvals.tables.rows import BadRow

    try:
        layout = source.in_format(file_format(source.path, source.format))
        with open_input(source.path) as opened:
            for entry in read_values(opened, layout):
                if isinstance(entry, BadRow):
                    raise InvalidInputError(f"{source.path}: {entry}", field="source")
                yield entry
    except FileError as error:
        raise InvalidInputError(str(error), field="source") from None
