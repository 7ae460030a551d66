"""Syncs of many stores, spread over machines by Dask.

    jobs.py      what is to be done: picklable descriptions without a secret in them
    working.py   one job, on a worker, in the worker's own event loop
    running.py   `run_jobs`: hands jobs to a `dask.distributed` client, yields what came of them

It needs `bc_attrvals[dask]` here and on the workers, and `bc_attrvals[cli]` on workers that read
files. Placement, retries and the failure of workers are Dask's; what is on a worker when it dies
is run again on another. A job with a journal on a path that all workers share goes on where it
was, and the journal's lock sees to it that it runs once at a time: a worker that Dask gave up and
that is still at it holds the lock, and the next one waits for it. (The file system must have POSIX
locks that hold between machines, as NFSv4 has.) A job without a journal begins anew, and while a
worker that was given up is still at it, both write the same values.

Jobs on one store run one after the other, unless all of them name a shared quota.
"""

from bc_attrvals.fleet.jobs import EnvironmentVariable, FileSource, Job, JobResult
from bc_attrvals.fleet.running import run_jobs

__all__ = ["EnvironmentVariable", "FileSource", "Job", "JobResult", "run_jobs"]
