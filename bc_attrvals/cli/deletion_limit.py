"""`--max-delete`: the most values that a sync or an upsert may delete."""

from __future__ import annotations

import re
from typing import Final, Self

import attrs

from bc_attrvals.tables.error_text import counted

#: Without `--max-delete`: this share, once it is more than this many values.
_DEFAULT_PERCENT: Final = 50
_DEFAULT_COUNT: Final = 100
_GIVEN: Final = re.compile(r"([0-9]{1,12})(%?)", re.ASCII)


@attrs.frozen
class DeletionLimit:
    """The most values a job may delete: a number, or per cent of those that are stored."""

    number: int = _DEFAULT_PERCENT
    is_percent: bool = True
    is_given: bool = False

    @classmethod
    def parse(cls, given: str) -> Self:
        """Return the limit that an option names. Raises ValueError."""
        match = _GIVEN.fullmatch(given)
        if match is None or (match[2] and int(match[1]) > 100):
            raise ValueError("must be a number of values, or 0% to 100%")
        return cls(int(match[1]), bool(match[2]), is_given=True)

    def problem(self, delete: int, stored: int) -> str | None:
        """Return why so many deletions of so many values are refused, or None."""
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
