"""A journal is of one job: any change of what it is bound to is seen."""

from __future__ import annotations

import re
from contextlib import closing

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bc_attrvals import AttributeValueFilter, JournalError, Reading
from bc_attrvals.sync.database import open_temporary
from bc_attrvals.sync.journal import JOURNALS, Identity, begin, end_loading, finish
from bc_attrvals.sync.options import JobKind
from bc_attrvals.sync.scope import Scope

IDS = st.none() | st.lists(st.integers(1, 3), max_size=3)
IDENTITIES = st.builds(
    Identity,
    kind=st.sampled_from(JobKind),
    place=st.sampled_from(
        [
            "https://api.example.com/stores/a/v3/x",
            "https://api.example.com/stores/b/v3/x",
            "https://api.example.org/stores/a/v3/x",
            "http://127.0.0.1:1/stores/a/v3/x",
            "http://127.0.0.1:2/stores/a/v3/x",
        ]
    ),
    scope=st.builds(
        lambda customers, attributes: Scope.of(
            AttributeValueFilter(customers, attributes)
        ).digest(),
        IDS,
        IDS,
    ),
    prune=st.booleans(),
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(of=IDENTITIES, by=IDENTITIES)
def test_only_the_same_job_goes_on_with_a_journal(of: Identity, by: Identity) -> None:
    working_set = open_temporary(JOURNALS)
    with closing(working_set.connection):
        begin(working_set, of)
        of.check(working_set, "it")
        if by == of:
            by.check(working_set, "it")
            return
        with pytest.raises(JournalError, match=re.escape("restart=True (--restart")):
            by.check(working_set, "it")


@pytest.mark.parametrize("field", [field.name for field in attrs.fields(Identity)])
def test_each_part_of_an_identity_counts(field: str) -> None:
    one = Identity(JobKind.SYNC, "https://a/x", "scope", False)
    other = {"kind": JobKind.UPSERT, "place": "https://b/x", "scope": "other", "prune": True}
    working_set = open_temporary(JOURNALS)
    with closing(working_set.connection):
        begin(working_set, one)
        with pytest.raises(JournalError):
            attrs.evolve(one, **{field: other[field]}).check(working_set, "it")


def test_a_report_stays_while_the_next_input_is_read_and_no_longer() -> None:
    working_set = open_temporary(JOURNALS)
    identity = Identity(JobKind.SYNC, "https://a/x", "scope", False)
    with closing(working_set.connection):
        begin(working_set, identity)
        end_loading(working_set, "digest")
        finish(working_set, "the report")
        assert working_set.text("report") == "the report"
        begin(working_set, identity)
        assert working_set.text("report") == "the report"
        assert working_set.text("digest") == ""
        end_loading(working_set, "digest")
        assert working_set.text("report") == ""


def test_a_job_with_open_changes_is_not_finished() -> None:
    working_set = open_temporary(JOURNALS)
    with closing(working_set.connection):
        begin(working_set, Identity(JobKind.UPSERT, "https://a/x", "scope", False))
        working_set.add_desired([(1, "x", None)])
        working_set.end_loading(seal=True)
        working_set.compare(Reading.NOTHING, prune=False, seal=True)
        with pytest.raises(JournalError, match="not made"):
            finish(working_set, "the report")
