"""The jobs of a fleet: frozen, picklable descriptions, and their results.

A job travels through Dask's scheduler, its logs and its dashboard, so it holds no secret. The
token, the proxy and the address of a shared quota are references, resolved on the worker. A
function is referred to by its module and name and never pickled: a pickle may carry its closure.
"""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import attrs
from attrs.validators import optional

from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.limits import Limits
from bc_attrvals.core.outcomes import PartialFailureError
from bc_attrvals.core.requests import DEFAULT_BASE_URL
from bc_attrvals.errors import (
    BCAttrValsError,
    InvalidInputError,
    JournalError,
    MirrorError,
    StoreStateError,
)
from bc_attrvals.store import Store
from bc_attrvals.sync.report import SyncReport
from bc_attrvals.sync.scope import Scope
from bc_attrvals.tables.layout import ALL_FIELDS, TableOptions

#: Errors that neither the service nor the network causes.
_OURS: Final = (InvalidInputError, JournalError, MirrorError, PartialFailureError, StoreStateError)
#: For the checks of a Store that is never entered; it opens nothing.
_NO_TOKEN: Final = "-"  # noqa: S105


@attrs.frozen
class EnvironmentVariable:
    """A secret in an environment variable of the worker."""

    name: str = attrs.field()

    @name.validator
    def _check_name(self, _: attrs.Attribute[str], value: str) -> None:
        if not isinstance(value, str) or not value or "=" in value or "\0" in value:
            raise InvalidInputError("name must be that of a variable", field="name")

    def resolve(self, store_hash: str) -> str:
        """Return the value. Raises `InvalidInputError`, which names an unset variable."""
        del store_hash
        value = os.environ.get(self.name)
        if not value:
            message = f"the environment variable {self.name} is not set on the worker"
            raise InvalidInputError(message, field=self.name)
        return value


@attrs.frozen
class Function:
    """A function that can be imported where the job runs; a job takes the function itself too.

    It is called with the store's hash, or without arguments if it takes none.
    """

    module: str
    name: str

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Function:
        """Return the name of a function.

        Raises `InvalidInputError` for one that others can't import: a lambda, a nested function,
        and one of `__main__`.
        """
        module = getattr(function, "__module__", None)
        name = getattr(function, "__qualname__", "")
        found: object = None
        if module and module != "__main__" and name.isidentifier():
            found = getattr(importlib.import_module(module), name, None)
        if found is not function:
            message = "a function must be importable by its module and name, and not of __main__"
            raise InvalidInputError(message, field="function")
        assert module is not None
        return cls(module, name)

    def call(self, store_hash: str) -> Any:  # noqa: ANN401 - whatever the function returns
        """Import and call it."""
        function = getattr(importlib.import_module(self.module), self.name)
        takes = [
            one
            for one in inspect.signature(function).parameters.values()
            if one.kind in {one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD, one.VAR_POSITIONAL}
        ]
        return function(store_hash) if takes else function()

    def resolve(self, store_hash: str) -> str:
        """Return the secret that the function returns.

        Its exception is named by its class alone, because its message might hold the secret.
        """
        try:
            secret = self.call(store_hash)
        except Exception as error:  # noqa: BLE001 - somebody else's function
            message = f"{self.module}.{self.name} failed: {type(error).__name__}"
            raise InvalidInputError(message, field=self.name) from None
        if not isinstance(secret, str):
            message = f"{self.module}.{self.name} must return a string"
            raise InvalidInputError(message, field=self.name)
        return secret


@attrs.frozen(kw_only=True)
class FileSource(TableOptions):
    """Values of a file that the worker can read, in the forms the command line reads.

    `format` is by default that of the extension. The other fields are those of `TableOptions`.
    """

    path: str = attrs.field(converter=os.fspath)
    format: str | None = None

    def __attrs_post_init__(self) -> None:
        """Check that the fields go together."""
        if self.customer_column is not None and self.email_column is not None:
            message = "give customer_column or email_column, not both"
            raise InvalidInputError(message, field="email_column")
        is_wide = self.customer_column is not None or self.email_column is not None
        if is_wide != bool(self.attributes or self.attributes_by_header):
            message = "the wide form needs customer_column or email_column, and attributes"
            raise InvalidInputError(message, field="customer_column")
        if self.columns and is_wide:
            raise InvalidInputError("columns are of the long form", field="columns")
        unknown = set(self.columns).difference(ALL_FIELDS)
        if unknown:
            raise InvalidInputError(f"columns has no field {min(unknown)!r}", field="columns")


Secret: TypeAlias = EnvironmentVariable | Function
Source: TypeAlias = FileSource | Function


def _by_name(value: object) -> object:
    return Function.of(value) if callable(value) and not isinstance(value, type) else value


def _one_of(*kinds: type) -> Callable[[object, attrs.Attribute[Any], object], None]:
    def check(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, kinds):
            names = " or ".join(kind.__name__ for kind in kinds)
            # The value is not shown: it may be the secret.
            message = f"{attribute.name} must be {names}, not {type(value).__name__}"
            raise InvalidInputError(message, field=attribute.name)

    return check


_SECRET: Final = _one_of(EnvironmentVariable, Function)


def _as_path(value: object) -> object:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _text(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, str) or not value:
        message = f"{attribute.name} must be a string, not empty"
        raise InvalidInputError(message, field=attribute.name)


@attrs.frozen(kw_only=True)
class Job:
    """The sync of one store: makes it hold the values of `source`.

    `access_token` is an `EnvironmentVariable` of the workers or an importable function that returns
    it. So are `shared_quota`, the URL of a server for a `RedisQuota` in `namespace`, and `proxy`,
    the URL of a proxy. `trust_env` takes the proxy of the worker's environment. `source` is a
    `FileSource` or an importable function that returns an iterable, sync or async, of items as
    `sync` takes them. `scope`, `prune` and `allow_empty` are those of `sync`. `journal` is a path
    that all workers share, one a job. So is `mirror`, that of a mirror of the `scope`, which the
    sync refreshes and compares with. `name` is shown in results and in the dashboard.

    Raises `InvalidInputError`, whose `field` names the argument.
    """

    store_hash: str
    access_token: Secret = attrs.field(converter=_by_name, validator=_SECRET, repr=False)
    source: Source = attrs.field(converter=_by_name, validator=_one_of(FileSource, Function))
    base_url: str = DEFAULT_BASE_URL
    scope: AttributeValueFilter | None = None
    prune: bool = False
    allow_empty: bool = False
    journal: str | None = attrs.field(default=None, converter=_as_path, validator=optional(_text))
    mirror: str | None = attrs.field(default=None, converter=_as_path, validator=optional(_text))
    limits: Limits = attrs.field(factory=Limits, validator=_one_of(Limits))
    timeout_s: float = 30.0
    shared_quota: Secret | None = attrs.field(
        default=None, converter=_by_name, validator=optional(_SECRET), repr=False
    )
    namespace: str = "bc_attrvals"
    proxy: Secret | None = attrs.field(
        default=None, converter=_by_name, validator=optional(_SECRET), repr=False
    )
    trust_env: bool = attrs.field(default=False, validator=_one_of(bool))
    name: str = attrs.field(default=attrs.Factory(lambda self: self.store_hash, takes_self=True))

    def __attrs_post_init__(self) -> None:
        """Check the arguments as their users do: the Store and the sync."""
        try:
            Store(self.store_hash, _NO_TOKEN, base_url=self.base_url, timeout=self.timeout_s)
        except InvalidInputError as error:
            if error.field != "timeout":
                raise
            message = str(error).replace("timeout", "timeout_s", 1)
            raise InvalidInputError(message, field="timeout_s") from None
        # Not a validator of the field, because its default is the store's hash.
        _text(self, attrs.fields(Job).name, self.name)
        Scope.of(self.scope)
        if self.prune and self.scope is None:
            message = "prune needs a scope; AttributeValueFilter() is the whole store"
            raise InvalidInputError(message, field="scope")

    @property
    def store(self) -> tuple[str, str]:
        """Equal for jobs on one store."""
        return self.base_url.rstrip("/"), self.store_hash


@attrs.frozen(kw_only=True)
class JobResult:
    """The result of a job: a report, or the error that ended it, whose `.report` may say more.

    Errors may be Dask's own, such as `KilledWorker`. `seconds` is the time of the last run, and
    `worker` the address it was on; both are None where no run ended.

    `without_shared_quota_s` is how many of the seconds it kept to a share of its own, because the
    server of its `shared_quota` was out of reach. 0.0 means never, or that no run ended.

    No error of this package holds a secret. An error that the job's own `source` raised is given
    unchanged, and so is its message.
    """

    job: Job
    report: SyncReport | None = None
    error: BaseException | None = attrs.field(default=None, eq=False)
    seconds: float | None = None
    worker: str | None = None
    without_shared_quota_s: float = 0.0

    @property
    def store_hash(self) -> str:
        """The store of the job."""
        return self.job.store_hash

    @property
    def ok(self) -> bool:
        """True when the store is as desired."""
        return self.error is None and self.report is not None and self.report.ok

    @property
    def refused(self) -> bool:
        """True when the service or the network ended the job."""
        return isinstance(self.error, BCAttrValsError) and not isinstance(self.error, _OURS)
