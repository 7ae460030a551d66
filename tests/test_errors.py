"""Errors: one base, a fixed hierarchy, picklable, and nothing secret in them."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable

import pytest

import bc_attrvals
from bc_attrvals import errors
from bc_attrvals.core import outcomes
from bc_attrvals.core.models import AttributeValueUpsert
from bc_attrvals.core.outcomes import (
    DeleteReport,
    OutcomeStatus,
    PartialFailureError,
    UpsertOutcome,
    UpsertReport,
)
from bc_attrvals.errors import (
    APIError,
    AttributeTypeError,
    AuthenticationError,
    BCAttrValsError,
    CertificateError,
    ConnectionFailedError,
    ConnectionLostError,
    DecodeError,
    FilterIgnoredError,
    HookError,
    InvalidInputError,
    JournalError,
    ListingDriftError,
    MirrorError,
    NotFoundError,
    PayloadTooLargeError,
    PermissionDeniedError,
    RateLimitError,
    RequestTimeoutError,
    RestoreError,
    ServerError,
    StoreStateError,
    StoreSuspendedError,
    TransportError,
    UnconfirmedError,
    UnknownAttributeError,
    UnknownCustomerError,
    UnprocessableError,
    UnresolvedError,
)


def defined() -> dict[str, type[BCAttrValsError]]:
    """All error classes that the package defines; one stands beside the report it holds."""
    return {
        name: cls
        for module in (errors, outcomes)
        for name, cls in vars(module).items()
        if inspect.isclass(cls)
        and issubclass(cls, BaseException)
        and cls.__module__ == module.__name__
    }


# --- the hierarchy ---------------------------------------------------------------------------

BASES: dict[type[Exception], tuple[type[Exception], ...]] = {
    BCAttrValsError: (Exception,),
    TransportError: (BCAttrValsError,),
    ConnectionFailedError: (TransportError,),
    CertificateError: (ConnectionFailedError,),
    RequestTimeoutError: (TransportError,),
    ConnectionLostError: (TransportError,),
    HookError: (TransportError,),
    APIError: (BCAttrValsError,),
    AuthenticationError: (APIError,),
    PermissionDeniedError: (APIError,),
    NotFoundError: (APIError,),
    PayloadTooLargeError: (APIError,),
    UnprocessableError: (APIError,),
    RateLimitError: (APIError,),
    ServerError: (APIError,),
    StoreSuspendedError: (ServerError,),
    DecodeError: (BCAttrValsError,),
    FilterIgnoredError: (BCAttrValsError,),
    InvalidInputError: (BCAttrValsError, ValueError),
    StoreStateError: (BCAttrValsError, RuntimeError),
    PartialFailureError: (BCAttrValsError,),
    ListingDriftError: (BCAttrValsError,),
    JournalError: (BCAttrValsError,),
    MirrorError: (BCAttrValsError,),
    RestoreError: (BCAttrValsError,),
    UnconfirmedError: (BCAttrValsError,),
    UnresolvedError: (BCAttrValsError,),
    UnknownCustomerError: (UnresolvedError,),
    UnknownAttributeError: (UnresolvedError,),
    AttributeTypeError: (UnresolvedError,),
}


@pytest.mark.parametrize(
    ("cls", "bases"), BASES.items(), ids=lambda one: getattr(one, "__name__", "")
)
def test_each_error_stands_where_the_design_puts_it(
    cls: type[Exception], bases: tuple[type[Exception], ...]
) -> None:
    assert cls.__bases__ == bases


def test_no_error_is_left_out_of_the_hierarchy_the_exports_or_the_package() -> None:
    assert set(defined().values()) == set(BASES)
    assert set(defined()) <= set(bc_attrvals.__all__)
    for name, cls in defined().items():
        assert getattr(bc_attrvals, name) is cls


# --- pickling --------------------------------------------------------------------------------

API_ARGUMENTS = ("Refused", {"0.data": "missing"}, "r-1", "PUT", "/stores/x/v3")
REPORT = UpsertReport(stored=3, failed=1, calls=2, retries=1, seconds=0.5)
TRANSPORT = {
    "method": "PUT",
    "path": "/stores/x/v3",
    "may_have_been_applied": True,
    "retryable": False,
}


def instances() -> list[BCAttrValsError]:
    """One of each class, with all its attributes set to something that is no default."""
    made: list[BCAttrValsError] = [
        BCAttrValsError("plain"),
        InvalidInputError("bad", field="value", place="items[17]"),
        StoreStateError("closed"),
        DecodeError("cut", place="$.data[3].id", status=200, request_id="r-1"),
        FilterIgnoredError("outside", field="customer_id", place="$.data[3]", row_id=9),
        UnconfirmedError("not there"),
        JournalError("held"),
        MirrorError("held"),
        RestoreError("two values are left"),
        ListingDriftError("moving", passes=7),
        PartialFailureError("1 of 4", REPORT),
    ]
    for cls in BASES:
        if issubclass(cls, TransportError):
            made.append(cls("broken", **TRANSPORT))
        elif issubclass(cls, UnresolvedError):
            made.append(cls("nobody", name="Loyality", nearest=["Loyalty tier"]))
        elif issubclass(cls, APIError):
            made.append(cls(418, *API_ARGUMENTS))
    return made


def attributes(error: BaseException) -> dict[str, object]:
    return {name: value for name, value in vars(error).items() if name != "__notes__"}


DOUBLES: dict[str, Callable[[BCAttrValsError], BCAttrValsError]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{
        f"pickle {protocol}": lambda error, protocol=protocol: pickle.loads(
            pickle.dumps(error, protocol)
        )
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
}


@pytest.mark.parametrize("double", DOUBLES.values(), ids=DOUBLES)
@pytest.mark.parametrize("error", instances(), ids=lambda error: type(error).__name__)
def test_every_error_is_pickled_and_copied_whole(
    error: BCAttrValsError, double: Callable[[BCAttrValsError], BCAttrValsError]
) -> None:
    error.attempts = 6
    error.waited_s = 12.5
    other = double(error)
    assert type(other) is type(error)
    assert other.args == error.args
    assert str(other) == str(error)
    assert repr(other) == repr(error)
    assert attributes(other) == attributes(error)
    assert (other.attempts, other.waited_s) == (6, 12.5)


def test_there_is_an_instance_of_every_class_to_be_pickled() -> None:
    assert {type(error) for error in instances()} == set(BASES)


def test_the_report_of_a_job_and_notes_are_pickled_with_the_error() -> None:
    failure = UpsertOutcome(
        AttributeValueUpsert(1, 2, "x"), OutcomeStatus.FAILED, error=UnprocessableError(422, "t")
    )
    for report in (UpsertReport(failed=1, failures=(failure,)), DeleteReport(deleted=3, calls=1)):
        error = AuthenticationError(401, "no")
        error.report = report
        error.add_note("while syncing scores")
        other = pickle.loads(pickle.dumps(error))
        assert other.__notes__ == ["while syncing scores"]
        assert type(other.report) is type(report)
        assert other.report.calls == report.calls
        if isinstance(report, UpsertReport):
            assert other.report.failures[0].item == failure.item
            assert str(other.report.failures[0].error) == "422 t"


def test_a_users_own_subclass_with_arguments_by_name_is_pickled_too() -> None:
    error = pickle.loads(pickle.dumps(OwnError("x", colour="blue")))
    assert (type(error), error.colour, str(error)) == (OwnError, "blue", "x")


class OwnError(BCAttrValsError):
    def __init__(self, message: str, *, colour: str) -> None:
        super().__init__(message)
        self.colour = colour


# --- what they say ---------------------------------------------------------------------------


def test_an_error_says_nothing_was_sent_until_told_otherwise() -> None:
    error = BCAttrValsError("x")
    assert (error.attempts, error.waited_s, error.report) == (0, 0.0, None)


def test_an_api_error_says_status_title_call_field_errors_and_request_id() -> None:
    error = UnprocessableError(422, *API_ARGUMENTS)
    assert str(error) == "422 Refused (PUT /stores/x/v3) 0.data: missing [request id r-1]"
    assert str(APIError(418, "Teapot")) == "418 Teapot"


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (AuthenticationError, "access token"),
        (PermissionDeniedError, "scope"),
        (NotFoundError, "store hash"),
        (StoreSuspendedError, "suspended"),
    ],
)
def test_errors_that_end_a_job_say_what_to_look_at(cls: type[APIError], words: str) -> None:
    assert words in str(cls(418, "t"))


def test_an_api_error_keeps_its_own_copy_of_the_field_errors() -> None:
    given = {"0.data": "bad"}
    error = APIError(422, "t", given)
    given.clear()
    assert error.errors == {"0.data": "bad"}
    assert APIError(422, "t").errors == {}


def test_a_decode_error_says_where() -> None:
    error = DecodeError("expected int", place="$.data[3].id")
    assert str(error) == "expected int @ $.data[3].id"
    assert str(DecodeError("empty")) == "empty @ $"


def test_an_input_error_says_where_in_the_input() -> None:
    assert str(InvalidInputError("bad")) == "bad"
    assert str(InvalidInputError("bad", field="value", place="items[17]")) == "items[17]: bad"


def test_a_transport_error_tells_whether_the_write_may_have_been_applied() -> None:
    error = ConnectionLostError("x")
    assert (error.may_have_been_applied, error.retryable) == (False, True)
    assert ConnectionLostError("x", may_have_been_applied=True).may_have_been_applied


def test_no_error_takes_or_holds_headers_a_request_or_a_token() -> None:
    for name, cls in defined().items():
        names = {*inspect.signature(cls.__init__).parameters, *vars(cls)}
        for error in instances():
            if type(error) is cls:
                names |= set(vars(error))
        suspect = {
            one
            for one in names
            for word in ("token", "header", "secret", "session", "body", "authorization")
            if word in one.lower()
        }
        assert not suspect, name
