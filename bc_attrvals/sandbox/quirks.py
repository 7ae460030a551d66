"""Holds the choices where nobody could verify what the service does; defaults are the likeliest.

Everything here is marked *open*, *sibling* or *reported* in the collected facts about the service.
A client has to cope with either setting, so tests turn them one by one.
"""

from __future__ import annotations

from typing import Literal

import attrs


@attrs.frozen(kw_only=True)
class Quirks:
    """Unverified behaviours of the service, one field each.

    `value_field` names the value in answers (references before 2022 said `value`).
    `order` is the order of listings; `shuffled` is stable but follows no column.
    `clamp_pages` answers the last page for every page after it; otherwise those are empty.
    `omit_unchanged` leaves rows that changed nothing out of the answer to an upsert; `answer_order`
    turns that answer round.
    `error_style` is how a refused upsert names its first bad item: by index, without index, or not
    at all.
    `store_good_items_of_refused_batch` stores the rest of a refused upsert.
    `date_bounds` tells whether `:min` and `:max` include the moment they name.
    `reset_granularity_ms` is the step that `X-Rate-Limit-Time-Reset-Ms` is rounded down to.
    `rate_headers` set to False hides the quota, which still counts.
    `omit_links` leaves `links` out of the pagination.
    `max_limit` and `over_limit` decide about larger pages: 413, or silently the largest.
    `max_delete_ids` is the most ids in one DELETE before 413; None for no such limit.
    `zoneless_dates` drops the final `Z` of the dates in answers.
    `encoded_dates` takes date values percent-encoded, as a proxy in between may send them; the
    service was seen to refuse them.
    `request_id` puts `X-Request-Id` on every answer.
    `abandoned_keeps_slot` lets a request whose client went away count as in flight until it is
    done. It is applied either way.
    """

    value_field: Literal["attribute_value", "value"] = attrs.field(
        default="attribute_value", validator=attrs.validators.in_(("attribute_value", "value"))
    )
    order: Literal["id", "id_desc", "shuffled"] = attrs.field(
        default="id", validator=attrs.validators.in_(("id", "id_desc", "shuffled"))
    )
    clamp_pages: bool = False
    omit_unchanged: bool = False
    error_style: Literal["indexed", "field", "empty"] = attrs.field(
        default="indexed", validator=attrs.validators.in_(("indexed", "field", "empty"))
    )
    store_good_items_of_refused_batch: bool = False
    date_bounds: Literal["inclusive", "exclusive"] = attrs.field(
        default="inclusive", validator=attrs.validators.in_(("inclusive", "exclusive"))
    )
    reset_granularity_ms: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    rate_headers: bool = True
    omit_links: bool = False
    max_limit: int = attrs.field(default=250, validator=attrs.validators.ge(1))
    over_limit: Literal["refuse", "clamp"] = attrs.field(
        default="refuse", validator=attrs.validators.in_(("refuse", "clamp"))
    )
    max_delete_ids: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.ge(1))
    )
    zoneless_dates: bool = False
    answer_order: Literal["given", "reversed"] = attrs.field(
        default="given", validator=attrs.validators.in_(("given", "reversed"))
    )
    encoded_dates: bool = False
    request_id: bool = True
    abandoned_keeps_slot: bool = False
