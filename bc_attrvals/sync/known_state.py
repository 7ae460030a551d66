"""What a sync needs of a mirror. The mirror stands above and implements it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from bc_attrvals.core.models import AttributeValue
from bc_attrvals.scheduling.calls import Calls
from bc_attrvals.sync.scope import Scope


class KnownState(Protocol):
    """A mirror in use by one sync."""

    async def refresh(self) -> int:
        """Make it equal to the store; return how many calls listing it anew takes."""
        ...

    def row_lists(self) -> AsyncGenerator[Sequence[AttributeValue]]:
        """Yield its rows of the sync's scope in lists."""
        ...

    async def note(self, stored: Sequence[AttributeValue], deleted: Sequence[int]) -> None:
        """Note rows that the service stored, as it echoed them, and ids that it deleted."""
        ...


class SyncMirror(Protocol):
    """A mirror that a sync may use."""

    def use(
        self, calls: Calls, scope: Scope, place: str
    ) -> AbstractAsyncContextManager[KnownState]:
        """Keep other refreshes out while a sync uses it, and refresh it with these calls.

        Raises `InvalidInputError` for a mirror of another place, or of less than the scope.
        """
        ...
