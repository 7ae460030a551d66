"""The arguments of a `RedisQuota`, checked."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import attrs

from bc_attrvals.errors import InvalidInputError
from bc_attrvals.shared_quota.address import checked_url

_NAMESPACE: Final = re.compile(r"[A-Za-z0-9_.:-]{1,100}", re.ASCII)
#: The part of `lease_s` after which the server ends a lease.
_TTL_SHARE: Final = 0.9


def _namespace(instance: object, attribute: attrs.Attribute[str], value: object) -> None:
    del instance
    if not isinstance(value, str) or not _NAMESPACE.fullmatch(value):
        message = "namespace must be 1 to 100 letters, digits, '_', '.', ':' or '-'"
        raise InvalidInputError(message, field=attribute.name)


def _from(low: float, high: float) -> Callable[[object, attrs.Attribute[Any], object], None]:
    def check(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
        del instance
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (is_number and low <= value <= high):  # type: ignore[operator]
            message = f"{attribute.name} must be a number from {low:g} to {high:g}, not {value!r}"
            raise InvalidInputError(message, field=attribute.name)

    return check


@attrs.frozen(kw_only=True)
class QuotaOptions:
    """Times in seconds. Raises `InvalidInputError`, whose `field` names the argument."""

    url: str = attrs.field(converter=checked_url, repr=False)
    namespace: str = attrs.field(validator=_namespace)
    lease_s: float = attrs.field(validator=_from(0.2, 3600))
    fallback_share: float = attrs.field(validator=_from(0.0001, 1))
    timeout_s: float = attrs.field(validator=_from(0.05, 60))

    @property
    def ttl_s(self) -> float:
        """After how long the server ends a lease that nobody renewed."""
        return self.lease_s * _TTL_SHARE
