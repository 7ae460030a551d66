"""What the commands that use a mirror share: its scope, and opening it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from typing import TypeVar

from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.errors import MirrorError
from bc_attrvals.mirror.mirror import Mirror, scope_of
from bc_attrvals.store import Store
from bc_attrvals.tables.error_text import one_line

T = TypeVar("T")


def existing_scope(path: str) -> AttributeValueFilter:
    """Return the scope of a mirror that is there. It blocks. Raises `MirrorError` for no file."""
    scope = scope_of(path)
    if scope is None:
        raise MirrorError(f"there is no mirror {one_line(path)}; make it with bc-attrvals mirror")
    return scope


async def chunked(rows: AsyncGenerator[T], size: int) -> AsyncGenerator[list[T]]:
    """Yield rows in lists of `size`; the last list may be shorter."""
    chunk: list[T] = []
    async with aclosing(rows):
        async for row in rows:
            chunk.append(row)
            if len(chunk) == size:
                yield chunk
                chunk = []
    if chunk:
        yield chunk


def opened_mirror(
    store: Store, path: str | None, scope: AttributeValueFilter | None, *, keep: bool = False
) -> AbstractAsyncContextManager[Mirror | None]:
    """Open a mirror with its own scope; make one of `scope` if it is missing. None without path.

    With `keep` a scope that is given must be the mirror's own. It blocks.
    """
    if path is None:
        return nullcontext()
    own = scope_of(path) if scope is None or not keep else None
    return store.mirror(path, scope if own is None else own)
