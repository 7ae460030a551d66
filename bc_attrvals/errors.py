"""Every error the package raises: one base, scalar attributes, picklable.

The data path raises from here alone, so `except BCAttrValsError` is complete. Nothing in an
error holds the access token, and titles that come from the service are cut to a line's length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def _restore(
    cls: type[BCAttrValsError], args: tuple[object, ...], state: dict[str, object]
) -> BCAttrValsError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class BCAttrValsError(Exception):
    """Base of all errors of this package.

    `attempts` says how often the request behind it was sent (0: never), `waited_s` how many
    seconds went by in back-off and in waiting for quota before it was given up. `report` is the
    `UpsertReport`, `DeleteReport` or `SyncReport` of the bulk job that this error ended, else None.
    """

    attempts: int = 0
    waited_s: float = 0.0
    report: object = None

    def __reduce__(
        self,
    ) -> tuple[object, tuple[type[BCAttrValsError], tuple[object, ...], dict[str, object]]]:
        # Exceptions with keyword-only arguments do not survive the default, which calls cls(*args).
        return _restore, (type(self), self.args, dict(self.__dict__))


class InvalidInputError(BCAttrValsError, ValueError):
    """Input that the service would refuse, found before anything was sent.

    `field` names the argument or attribute, `place` where in the input it stands
    (`items[17]`), or None when there is only one.
    """

    def __init__(self, message: str, *, field: str | None = None, place: str | None = None) -> None:
        super().__init__(f"{place}: {message}" if place else message)
        self.field = field
        self.place = place


class StoreStateError(BCAttrValsError, RuntimeError):
    """A Store used before it was entered, after it was closed, or in another event loop."""


class DecodeError(BCAttrValsError):
    """An answer that can't be read; `place` is a JSON path such as `$.data[3].id`.

    A write with this error was answered 2xx, so it may have been applied.
    """

    def __init__(
        self,
        reason: str,
        *,
        place: str = "$",
        status: int | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(f"{reason} @ {place}")
        self.reason = reason
        self.place = place
        self.status = status
        self.request_id = request_id


class FilterIgnoredError(BCAttrValsError):
    """The service listed a row that the filter did not ask for.

    The row is not used: nothing is deleted, counted or reported because of it. `place` is its JSON
    path in the answer, `row_id` its id, and `field` what does not match (or can't be read).
    """

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        place: str | None = None,
        row_id: int | None = None,
    ) -> None:
        super().__init__(f"{message} @ {place}" if place else message)
        self.field = field
        self.place = place
        self.row_id = row_id


class UnconfirmedError(BCAttrValsError):
    """The service answered with success, and nothing proves that it did what was asked.

    In the outcome of an item: it does not hold the value that was sent, after the item was sent
    again; the message names what it holds. Raised of a delete: no answer confirmed it.
    """


class RestoreError(BCAttrValsError):
    """A probe could not put back what it had written; the message names what is left.

    The state that it keeps in a file is still there: `bc-attrvals probe --restore FILE`.
    """


class UnresolvedError(BCAttrValsError):
    """A name or an address that stands for no id, or for more than one.

    In a bulk job it fails its own item only. `name` is what could not be resolved, `nearest` the
    existing names that are most like it, best first. `key` is (customer_id, attribute_id) where
    both are known.
    """

    key: tuple[int, int] | None = None

    def __init__(self, message: str, *, name: str = "", nearest: Sequence[str] = ()) -> None:
        if nearest:
            message += "; nearest: " + ", ".join(map(repr, nearest))
        super().__init__(message)
        self.name = name
        self.nearest = tuple(nearest)


class UnknownCustomerError(UnresolvedError):
    """No customer has this e-mail address, or more than one has it in different case."""


class UnknownAttributeError(UnresolvedError):
    """No attribute has this name or id, or two definitions have the name."""


class AttributeTypeError(UnresolvedError):
    """A value that the attribute's type can't hold, or a definition that has another type."""


class JournalError(BCAttrValsError):
    """A journal that is damaged, held by another process, full, or of another job."""


class MirrorError(BCAttrValsError):
    """A mirror that is damaged, full, held by another process, or of another store or scope."""


class ListingDriftError(BCAttrValsError):
    """The listing kept changing while it was read, so it could not be read exactly once.

    `passes` is how often it was read.
    """

    def __init__(self, message: str, *, passes: int = 1) -> None:
        super().__init__(message)
        self.passes = passes


class TransportError(BCAttrValsError):
    """The request got no answer, or not the whole of it.

    `may_have_been_applied` is True for a write that may have reached the service. All calls of
    this resource are idempotent (matching is by customer and attribute, deleting by id), so such
    a request may always be sent again; `retryable` is False where that can't help (a certificate
    that is not trusted). `was_accepted` is True where an answer of success (2xx) had begun, and its
    body was lost.
    """

    was_accepted: bool = False

    def __init__(
        self,
        message: str,
        *,
        method: str | None = None,
        path: str | None = None,
        may_have_been_applied: bool = False,
        retryable: bool = True,
    ) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.method = method
        self.path = path
        self.may_have_been_applied = may_have_been_applied


class ConnectionFailedError(TransportError):
    """No connection could be made (DNS, refused, TLS), so nothing was sent."""


class CertificateError(ConnectionFailedError):
    """The certificate of the service or the proxy is not trusted. Ends a whole job.

    Nothing was sent. A private authority is made known by the environment variable
    `SSL_CERT_FILE`, or by the `ssl` context of a session of your own.
    """


class RequestTimeoutError(TransportError):
    """No whole answer within the timeout of one attempt."""


class ConnectionLostError(TransportError):
    """The connection broke after the request was on its way.

    `was_kept_alive` is True where the connection had served a request before and was lost before
    any byte of the answer: a server that closes idle connections looks like this.
    """

    was_kept_alive: bool = False


class HookError(TransportError):
    """A trace, a middleware or a session of the caller raised, or cancelled the request.

    The message names the exception and where it was raised. The request may have been sent and
    answered.
    """


class APIError(BCAttrValsError):
    """The service answered with an error.

    `status` is the HTTP status, `title` the service's words (or what stood in their place),
    `errors` its field errors, such as `{"0.data": "missing attribute value"}`, `request_id` the
    `X-Request-Id` to quote to the service's support.
    """

    def __init__(
        self,
        status: int,
        title: str,
        errors: Mapping[str, str] | None = None,
        request_id: str | None = None,
        method: str | None = None,
        path: str | None = None,
    ) -> None:
        super().__init__(status, title)
        self.status = status
        self.title = title
        self.errors: dict[str, str] = dict(errors or {})
        self.request_id = request_id
        self.method = method
        self.path = path

    #: What the user should look at, appended to the message.
    hint: str = ""

    def __str__(self) -> str:
        parts = [f"{self.status} {self.title}"]
        if self.method and self.path:
            parts.append(f"({self.method} {self.path})")
        if self.errors:
            parts.append("; ".join(f"{key}: {text}" for key, text in self.errors.items()))
        if self.request_id:
            parts.append(f"[request id {self.request_id}]")
        if self.hint:
            parts.append(f"- {self.hint}")
        return " ".join(parts)


class AuthenticationError(APIError):
    """401: the access token is wrong or was revoked. Ends a whole job."""

    hint = "check the access token"


class PermissionDeniedError(APIError):
    """403: the token lacks the scope. Ends a whole job."""

    hint = "check that the API account has the Customers scope (modify, to write)"


class NotFoundError(APIError):
    """404: no such store or path. Ends a whole job."""

    hint = "check the store hash and the base URL"


class PayloadTooLargeError(APIError):
    """413: too many items in a call, or too large a page."""


class UnprocessableError(APIError):
    """422: a bad item or filter. Keys of `errors` are `"<index from 0>.<field>"` at their best."""


class RateLimitError(APIError):
    """429 that outlasted all tries: the store stayed under load, or refused the concurrency."""


class ServerError(APIError):
    """5xx that outlasted all tries."""


class StoreSuspendedError(ServerError):
    """503 with a title that begins "The store is suspended". Never sent again; ends a whole job."""

    hint = "the store itself is suspended; sending again will not help"
