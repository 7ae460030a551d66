"""A Dask cluster for the tests of this folder."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Start a cluster with two worker processes."""
    distributed = pytest.importorskip(
        "distributed", reason="needs Dask: pip install 'bc_attrvals[dev]'"
    )
    directory = tmp_path_factory.mktemp("dask")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLEET_TOKEN", "s3cret-token")
        patch.setenv("FLEET_MARK", str(directory / "mark"))
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        with (
            distributed.LocalCluster(
                n_workers=2,
                threads_per_worker=4,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                local_directory=str(directory),
                silence_logs=logging.CRITICAL,
            ) as running,
        ):
            yield running


@pytest.fixture
async def client(cluster: Any) -> AsyncIterator[Any]:
    import distributed

    async with distributed.Client(cluster.scheduler_address, asynchronous=True) as one:
        yield one
