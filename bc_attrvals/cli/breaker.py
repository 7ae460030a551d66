"""Ends a job when the service stops answering."""

from __future__ import annotations

from typing import Final

from bc_attrvals.errors import BCAttrValsError

#: Each of them used all its tries. Going on would take hours to reach the same end.
_MOST_IN_A_ROW: Final = 30


class NoAnswerError(BCAttrValsError):
    """The service did not answer for many values in a row."""


class CircuitBreaker:
    """Counts the values in a row that no answer came for."""

    def __init__(self) -> None:
        self._in_a_row = 0
        self._answered = 0

    def note(self, *, answered: int = 0, unanswered: int = 0) -> None:
        """Count values whose calls ended."""
        self._answered += answered
        self._in_a_row = unanswered if answered else self._in_a_row + unanswered

    @property
    def is_open(self) -> bool:
        """Whether the job is to end now."""
        return self._in_a_row >= _MOST_IN_A_ROW

    def check(self, reason: BCAttrValsError | None = None) -> None:
        """Raise `NoAnswerError` if missing answers ended the job, or it never got one."""
        if self.is_open or (self._in_a_row and not self._answered):
            because = f": {reason}" if reason is not None else ""
            raise NoAnswerError(
                f"no answer for {self._in_a_row} values in a row, each after all its tries"
                f"{because}; run the same again later"
            ) from reason
