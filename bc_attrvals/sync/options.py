"""The options of a sync. Imports no SQLite, so it costs nothing until a sync runs."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from typing import TypeAlias

import attrs

from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.outcomes import UpsertOutcome
from bc_attrvals.core.sync_plan import SyncChange, SyncPlan
from bc_attrvals.sync.known_state import SyncMirror

#: The path of a journal.
JournalPath: TypeAlias = str | os.PathLike[str]
#: Maps a value to the form in which the store keeps it.
Normalise: TypeAlias = Callable[[str], str]
#: Is awaited with the plan before anything is written; False ends the sync there.
Confirm: TypeAlias = Callable[[SyncPlan], Awaitable[bool]]
#: Is awaited with the changes of a plan, some thousands at a time.
ShowChanges: TypeAlias = Callable[[list[SyncChange]], Awaitable[None]]
#: Is awaited with the outcomes of all values that failed, some hundreds at a time.
ShowFailures: TypeAlias = Callable[[Sequence[UpsertOutcome]], Awaitable[None]]


class JobKind(StrEnum):
    """The kind of a job, and of its journal."""

    SYNC = "sync"
    #: Writes everything and reads nothing.
    UPSERT = "upsert"


@attrs.frozen(kw_only=True)
class SyncOptions:
    """The options of a sync; see `AttributeValues.sync` and `plan_sync`."""

    kind: JobKind = JobKind.SYNC
    scope: AttributeValueFilter | None = None
    prune: bool = False
    allow_empty: bool = False
    allow_unresolved: bool = False
    always_read: bool = False
    normalise: Normalise | None = None
    mirror: SyncMirror | None = None
    journal: JournalPath | None = None
    restart: bool = False
    confirm: Confirm | None = None
    show_changes: ShowChanges | None = None
    show_failures: ShowFailures | None = None
    max_failures: int = 0
