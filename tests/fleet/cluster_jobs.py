"""Jobs of emulated stores, run on the cluster of the fixtures."""

from __future__ import annotations

from typing import Any

from bc_attrvals import AttributeValueFilter
from bc_attrvals.fleet import (
    EnvironmentVariable,
    Job,
    JobResult,
    run_jobs,
)
from bc_attrvals.sandbox import Sandbox
from tests.fleet_sources import token, values

SCOPE = AttributeValueFilter(attribute_id_in=[1])


TOKENS = EnvironmentVariable("FLEET_TOKEN")


def job_of(sandbox: Sandbox, **options: Any) -> Job:
    defaults: dict[str, Any] = {
        "store_hash": sandbox.store_hash,
        "base_url": sandbox.url,
        "access_token": token,
        "source": values,
        "scope": SCOPE,
    }
    return Job(**{**defaults, **options})


async def all_of(client: Any, *jobs: Job, **options: Any) -> dict[str, JobResult]:
    return {one.job.name: one async for one in run_jobs(client, jobs, **options)}
