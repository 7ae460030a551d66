"""A real Valkey for the tests of a module; where it is not installed they are skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from bc_attrvals.shared_quota import RedisQuota
    from tests.valkey import Valkey


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    from tests.valkey import Valkey

    with Valkey() as one:
        yield one


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    """Serve one test alone, which may stop it."""
    from tests.valkey import Valkey

    with Valkey() as one:
        yield one


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> str:
    return f"test-{abs(hash(request.node.nodeid))}"


@pytest.fixture
def shared(valkey: Valkey, namespace: str) -> Callable[..., RedisQuota]:
    from bc_attrvals.shared_quota import RedisQuota

    return lambda **options: RedisQuota(valkey.url, **{"namespace": namespace, **options})
