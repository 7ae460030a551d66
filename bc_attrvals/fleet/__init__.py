"""Syncs of many stores, spread over machines by Dask.

In: `Job`s, picklable descriptions without a secret. Out: one `JobResult` a job, as it ends. It may
import the Store, the shared quota and the file formats, and nothing of the command line.

    jobs.py       what to do, and the results
    worker.py     one job, on a worker, in the worker's own event loop
    dispatch.py   `run_jobs`: submits jobs to a `dask.distributed` client, yields their results

`README.md` beside this module says how jobs are placed, retried and resumed.
"""

from bc_attrvals.fleet.dispatch import run_jobs
from bc_attrvals.fleet.jobs import EnvironmentVariable, FileSource, Job, JobResult

__all__ = ["EnvironmentVariable", "FileSource", "Job", "JobResult", "run_jobs"]
