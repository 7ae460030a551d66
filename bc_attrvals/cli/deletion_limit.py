"""`--max-delete`: a sync that would delete an unexpected share of the store is refused."""

from __future__ import annotations

import re
from typing import Final

import attrs
import click

from bc_attrvals.cli.options import parsed
from bc_attrvals.core.sync_plan import SyncPlan
from bc_attrvals.tables.text import counted

#: Without `--max-delete`: this share, once it is more than this many values.
_DEFAULT_PERCENT: Final = 50
_DEFAULT_COUNT: Final = 100
_GIVEN: Final = re.compile(r"([0-9]{1,12})(%?)", re.ASCII)


@attrs.frozen
class DeletionLimit:
    """The most values a sync may delete: a number, or per cent of those found in the store."""

    number: int = _DEFAULT_PERCENT
    is_percent: bool = True
    is_given: bool = False

    def problem(self, plan: SyncPlan, for_empty_cells: int = 0) -> str | None:
        """Return why a plan, and stored values to delete for empty cells, are refused, or None."""
        delete = plan.delete + for_empty_cells
        stored = delete + plan.update + plan.unchanged
        most = stored * self.number // 100 if self.is_percent else self.number
        if not self.is_given:
            most = max(most, _DEFAULT_COUNT)
        if delete <= most:
            return None
        deletions = f"{counted(delete, 'value')} of {stored:,} would be deleted"
        if self.is_given:
            limit = f"{self.number:,}{'%' if self.is_percent else ''}"
            return f"{deletions}, more than --max-delete {limit}"
        return f"{deletions}, more than half; if that is meant, say --max-delete {delete}"


def _limit(given: str) -> DeletionLimit:
    match = _GIVEN.fullmatch(given)
    if match is None or (match[2] and int(match[1]) > 100):
        raise ValueError("must be a number of values, or 0% to 100%")
    return DeletionLimit(int(match[1]), bool(match[2]), is_given=True)


#: The option gives a `DeletionLimit`, or None.
max_delete_option = click.option(
    "--max-delete",
    metavar="N|N%",
    callback=parsed(_limit),
    help="With --prune or --empty delete: refuse to delete more values than this. [default: half of"
    " those in the scope, or of FILE, once that is more than 100]",
)
