"""The options of an emulated store, on the command line and in a TOML file, and the store.

Each option's name is that of a keyword of `Sandbox`, and so is each key of the file. The file fills
in what the command line leaves out.
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click
import msgspec
from click.core import ParameterSource

from bc_attrvals.cli.console import refuse
from bc_attrvals.cli.options import F, file_option, flag, parsed, repeatable, with_options
from bc_attrvals.cli.path_conflicts import check_paths
from bc_attrvals.sandbox import Fault, Quirks, Sandbox
from bc_attrvals.sandbox.faults import MAX_DELAY_S
from bc_attrvals.store_arguments import STORE_HASH, TOKEN

#: Calls in 30 s by plan (BigCommerce guide, API rate limits).
_PLANS: Final = {"standard": 150, "plus": 150, "pro": 450, "unlimited": None}
_MOST_SEEDED: Final = 10_000_000
_LONGEST_WINDOW_S: Final = 86_400.0
_PROBED: Final = "bc_attrvals.quirks_from"
_IN_MEMORY: Final = ":memory:"
_NUMBER_OR_NONE: Final = "N|none"
#: Where options come from, the strongest first.
_SOURCES: Final = (ParameterSource.COMMANDLINE, ParameterSource.DEFAULT_MAP)


def _finite(number: float) -> float:
    # click's range lets NaN pass.
    if not math.isfinite(number):
        raise ValueError(f"{number:g} is not a finite number")
    return number


def _whole_or_none(text: str) -> int | None:
    if text.lower() == "none":
        return None
    if text.isascii() and text.isdigit() and 0 < len(text) < 10:
        return int(text)
    raise ValueError(f"{text!r} is neither a number nor none")


def _quota(text: str) -> int | None:
    quota = _whole_or_none(text)
    if quota == 0:
        raise ValueError("a quota of 0 allows nothing")
    return quota


def _credential(name: str, pattern: re.Pattern[str], default: str, text: str) -> Callable[[F], F]:
    """Return an option whose value a Store takes, too."""

    def checked(given: str) -> str:
        if pattern.fullmatch(given):
            return given
        raise ValueError("a Store refuses it: it is empty, too long, or has other characters")

    return click.option(
        name, default=default, show_default=True, callback=parsed(checked), help=text
    )


def quota_options(quota: str | None, window_s: float) -> tuple[Callable[[F], F], ...]:
    """Return `--quota N|none` and `--window-s`, with these defaults."""
    return (
        click.option(
            "--quota",
            default=quota,
            show_default=True,
            callback=parsed(_quota),
            metavar=_NUMBER_OR_NONE,
            help="Calls allowed in a window.",
        ),
        click.option(
            "--window-s",
            type=click.FloatRange(0, _LONGEST_WINDOW_S, min_open=True),
            default=window_s,
            show_default=True,
            callback=parsed(_finite),
            metavar="NUMBER",
            help="Seconds of the quota's window; the service has 30.",
        ),
    )


def _faults(given: Sequence[str]) -> list[Fault]:
    faults = []
    for text in given:
        try:
            faults.append(Fault.parse(text))
        except ValueError as error:
            raise ValueError(f"{text!r}: {error}") from None
    return faults


def _read_probe(file: str) -> str:
    """Keep the quirks of a probe for `_quirks`; return the name of the file."""
    click.get_current_context().meta[_PROBED] = Quirks.from_probe(file)
    return file


def _quirks(given: Sequence[str]) -> Quirks:
    return Quirks.parse(tuple(given), click.get_current_context().meta.get(_PROBED))


def _customers(given: Sequence[str]) -> dict[int, str] | None:
    found: dict[int, str] = {}
    for text in given:
        number, _, email = text.partition("=")
        if not (number.isascii() and number.isdigit() and len(number) <= 10 and email):
            raise ValueError(f"{text!r} is not ID=ADDRESS, such as 7=ann@example.org")
        found[int(number)] = email
    return found or None


def _attributes(given: Sequence[str]) -> dict[str, str] | None:
    found: dict[str, str] = {}
    for text in given:
        name, _, found[name] = text.rpartition("=")
        if not name:
            raise ValueError(f"{text!r} is not NAME=TYPE, such as Tier=string")
    return found or None


def _read_config(file: str) -> str:
    """Take the file's keys as defaults of the options; return the name of the file."""
    ctx = click.get_current_context()
    try:
        content = tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    known = {one.name: one for one in ctx.command.params if one.name not in {None, "config"}}
    for key, value in content.items():
        if key not in known:
            close = difflib.get_close_matches(key, [name for name in known if name], n=1)
            meant = f"; did you mean {close[0]}?" if close else ""
            raise ValueError(f"{file}: {key!r} is no option{meant}")
        types, words = _types_of(known[key])
        # By the exact type: bool is an int in Python, but not in TOML.
        if type(value) not in types:
            raise ValueError(f"{file}: {key} must be {words}, not {value!r}")
    ctx.default_map = {
        **(ctx.default_map or {}),
        **{key: _as_given(value) for key, value in content.items()},
    }
    return file


def _types_of(option: click.Parameter) -> tuple[tuple[type, ...], str]:
    """Return what TOML must hold for an option: the types, and the same in words."""
    if option.multiple:
        return (list, dict), "a list or a table"
    if isinstance(option.type, click.types.BoolParamType):
        return (bool,), "true or false"
    if isinstance(option.type, click.IntRange):
        return (int,), "a whole number"
    if isinstance(option.type, click.FloatRange):
        return (int, float), "a number"
    if option.metavar == _NUMBER_OR_NONE:
        return (int, str), "a whole number or 'none'"
    return (str,), "a string"


def _as_given(value: object) -> object:
    """Return a value of the file as the command line would have it: a table as NAME=VALUE."""
    if not isinstance(value, Mapping):
        return value
    return [
        f"{name}={one if isinstance(one, str) else msgspec.json.encode(one).decode()}"
        for name, one in value.items()
    ]


_OPTIONS: Final = (
    file_option(
        "--config",
        is_eager=True,
        callback=parsed(_read_config),
        text="TOML with these options, such as latency_ms = 80, and tables customers, attributes "
        "and quirks.",
    ),
    click.option(
        "--plan",
        type=click.Choice(list(_PLANS), case_sensitive=False),
        help="The store's plan: 150 calls in 30 s, pro 450, unlimited none. [default: standard]",
    ),
    *quota_options(None, 30.0),
    click.option(
        "--latency-ms",
        type=click.FloatRange(0, MAX_DELAY_S * 1000),
        callback=parsed(_finite),
        metavar="NUMBER",
        default=0.0,
        help="Before each call is applied.",
    ),
    click.option(
        "--puts-at-once",
        "max_concurrent_puts",
        default="3",
        show_default=True,
        callback=parsed(_whole_or_none),
        metavar=_NUMBER_OR_NONE,
        help="PUTs accepted at once; more are answered 429.",
    ),
    repeatable(
        "--fault", "faults", "SPEC", _faults, "Calls that go wrong, such as 503=5%; see below."
    ),
    repeatable(
        "--quirk", "quirks", "NAME=VALUE", _quirks,
        "Behaviour that lasts, such as order=shuffled; GET /sandbox/quirks explains them.",
    ),
    file_option(
        "--quirks-from",
        is_eager=True,
        callback=parsed(_read_probe),
        text="Behave as the store that bc-attrvals probe wrote FILE of.",
    ),
    repeatable(
        "--customer", "customers", "ID=ADDRESS", _customers,
        "Define a customer; values then name only defined ones.",
    ),
    repeatable(
        "--attribute", "attributes", "NAME=TYPE", _attributes,
        "Define an attribute of type string, number or date; likewise.",
    ),
    _credential("--store-hash", STORE_HASH, "sandbox", "The store's hash."),
    _credential("--access-token", TOKEN, "sandbox-token", "The accepted token."),
    click.option(
        "--seed-values",
        type=click.IntRange(0, _MOST_SEEDED),
        default=0,
        metavar="N",
        help="Begin with N values.",
    ),
    flag("--https", "Serve with a certificate of an authority of its own."),
    flag("--proxy", "Open an HTTPS proxy that leads api.bigcommerce.com here, for any SDK."),
    click.option(
        "--proxy-port", type=click.IntRange(0, 65535), default=0, help="By default a free one."
    ),
    click.option(
        "--ca-file", metavar="FILE", help="Write the authority's certificate here, to be trusted."
    ),
    click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on."),
    flag(
        "--allow-remote",
        "Allow another address than loopback; the controls then need the access token.",
    ),
    click.option("--port", type=click.IntRange(0, 65535), default=0, help="By default a free one."),
    click.option(
        "--database", default=_IN_MEMORY, metavar="FILE", help="Keeps the values for the next time."
    ),
)  # fmt: skip


def store_options(function: F) -> F:
    """Add all options of an emulated store: `--seed-values`, and those of `emulated_store`."""
    return with_options(function, _OPTIONS)


def emulated_store(
    *,
    config: str | None,
    quirks_from: str | None,
    plan: str | None,
    database: str,
    quota: int | None,
    ca_file: str | None,
    **options: Any,  # noqa: ANN401 - Sandbox checks them
) -> Sandbox:
    """Return the sandbox that the options describe, not started.

    Raises `click.UsageError` for options that do not go together, and where a file that is written
    is also another file of the command.
    """
    check_paths(
        [("--config", config), ("--quirks-from", quirks_from)],
        [("--ca-file", ca_file)],
        [("--database", None if database == _IN_MEMORY else database)],
    )
    quota = _quota_of(plan, quota)
    refuse(quota is None and _window_is_given(), "--window-s has no meaning without a quota")
    try:
        return Sandbox(database, quota=quota, ca_file=ca_file, **options)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _quota_of(plan: str | None, quota: int | None) -> int | None:
    """Return the quota of the plan or of `--quota`; the line goes before the file."""
    for source in _SOURCES:
        by_plan, by_quota = (_source(name) is source for name in ("plan", "quota"))
        refuse(by_plan and by_quota, "give --plan or --quota, not both")
        if by_quota:
            return quota
        if by_plan:
            break
    return _PLANS[plan or "standard"]


def _window_is_given() -> bool:
    """Whether the window is given, and not left over in the file by a quota on the line."""
    window, line = _source("window_s"), ParameterSource.COMMANDLINE
    return window is line or (
        window is ParameterSource.DEFAULT_MAP and line not in {_source("plan"), _source("quota")}
    )


def _source(name: str) -> ParameterSource | None:
    return click.get_current_context().get_parameter_source(name)
