"""`sandbox`: an emulated store to try things against."""

from __future__ import annotations

import math
import shlex
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

import click
from click.core import ParameterSource

from bc_attrvals.cli.interrupts import Stopper, run
from bc_attrvals.cli.sample import sample_values
from bc_attrvals.cli.settings import Settings, output_options, pass_settings
from bc_attrvals.cli.text import examples
from bc_attrvals.sandbox import Fault, FaultKind, Sandbox
from bc_attrvals.sandbox.faults import MAX_DELAY_S
from bc_attrvals.tables.text import counted

__all__ = ["quota_option", "sandbox"]


F = TypeVar("F", bound=Callable[..., Any])


#: Calls per 30 s that the plans allow: documented, but for Enterprise, whose contracts say.
PLANS: Final = {"standard": 150, "plus": 150, "pro": 450, "unlimited": None}
_MOST_SEEDED: Final = 10_000_000
_LONGEST_WINDOW_S: Final = 86_400.0


_ON_THE_LINE: Final = ParameterSource.COMMANDLINE


class _Finite(click.FloatRange):
    """A range of numbers; click's own lets NaN pass."""

    name = "number"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's own
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:  # noqa: ANN401 - click's own
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{number:g} is not a finite number", param, ctx)
        return number


def _quota(ctx: click.Context, param: click.Parameter, text: str | None) -> int | None:
    if text is None or text.lower() == "none":
        return None
    if text.isascii() and text.isdigit() and 0 < len(text) < 10:
        return int(text)
    raise click.BadParameter(f"{text!r} is neither a number nor none", ctx=ctx, param=param)


def quota_option(default: str | None) -> Callable[[F], F]:
    """Add `--quota N|none`."""
    return click.option(
        "--quota",
        default=default,
        show_default=True,
        callback=_quota,
        metavar="N|none",
        help="Calls allowed in a window.",
    )


def _faults(ctx: click.Context, param: click.Parameter, given: Sequence[str]) -> list[Fault]:
    faults = []
    for text in given:
        try:
            faults.append(Fault.parse(text))
        except ValueError as error:
            raise click.BadParameter(f"{text!r}: {error}", ctx=ctx, param=param) from None
    return faults


def _fault_help() -> str:
    kinds = textwrap.fill(
        f"kinds: {', '.join(kind.value for kind in FaultKind)}",
        width=78,
        initial_indent="  ",
        subsequent_indent=" " * 9,
    )
    return f"""\b
Faults are KIND[=SHARE][,FIELD=VALUE]...:
{kinds}
  SHARE of the calls, 0.05 or 5% [default: all]
  operation=list|upsert|delete   only GET, PUT or DELETE
  times=N after=N                at most N times; not before N calls
  delay_s=S retry_after_s=S      how late; the wait that the answer asks for
  applied=yes                    the call is applied all the same"""


@click.command(
    epilog=_fault_help()
    + "\n\n"
    + examples(
        "bc-attrvals sandbox --port 8080 --seed-values 10000",
        "bc-attrvals sandbox --plan pro --latency-ms 80 --fault 503=5% --fault drop_after=0.01",
        "bc-attrvals sandbox --fault 429,operation=upsert,times=3 --fault slow=0.1,delay_s=2",
        "bc-attrvals sandbox --json      (one line for another program to read)",
        "curl http://127.0.0.1:8080/sandbox/state",
    )
)
@click.option(
    "--plan",
    type=click.Choice(list(PLANS), case_sensitive=False),
    help="The store's plan: 150 calls in 30 s, pro 450, unlimited none. [default: standard]",
)
@quota_option(None)
@click.option(
    "--window-s",
    type=_Finite(0, _LONGEST_WINDOW_S, min_open=True),
    help="How long a window of the quota lasts. [default: 30]",
)
@click.option(
    "--latency-ms",
    type=_Finite(0, MAX_DELAY_S * 1000),
    default=0.0,
    help="Before each call is applied.",
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    callback=_faults,
    metavar="SPEC",
    help="Calls that go wrong, such as 503=5%; see below. Repeatable.",
)
@click.option(
    "--seed-values",
    type=click.IntRange(0, _MOST_SEEDED),
    default=0,
    metavar="N",
    help="Begin with N values.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="By default a free one.")
@click.option(
    "--database", default=":memory:", metavar="FILE", help="Keeps the values for the next time."
)
@output_options()
@pass_settings
def sandbox(
    settings: Settings,
    *,
    plan: str | None,
    quota: int | None,
    window_s: float | None,
    latency_ms: float,
    faults: list[Fault],
    seed_values: int,
    port: int,
    database: str,
) -> None:
    """Serve an emulated store on 127.0.0.1 until Ctrl-C, and print how to reach it.

    It has the service's rules: the quota, ten values a call, three PUTs at once. Its address is
    also a page for the browser, with rows, requests, quota and faults; the same is there as JSON
    under /sandbox (GET /sandbox lists it) for the test suites of other languages.

    Exit status: 0 when stopped by Ctrl-C or SIGTERM, 2 usage, or a port or file that can't be had.
    """
    quota_given = click.get_current_context().get_parameter_source("quota") is _ON_THE_LINE
    if plan is not None and quota_given:
        raise click.UsageError("give --plan or --quota, not both")
    if not quota_given:
        quota = PLANS[plan or "standard"]
    if quota is None and window_s is not None:
        raise click.UsageError("--window-s has no meaning without a quota")
    try:
        emulated = Sandbox(
            database,
            quota=quota,
            window_s=30.0 if window_s is None else window_s,
            latency_ms=latency_ms,
            faults=faults,
            port=port,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    run(lambda stopper: _serve(stopper, settings, emulated, seed_values), grace_s=None)


async def _serve(stopper: Stopper, settings: Settings, emulated: Sandbox, seed_values: int) -> None:
    try:
        await emulated.start()
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    try:
        await emulated.seed(_seeds(stopper, seed_values))
        if stopper.stopped:
            settings.note("Stopped before it served.")
            return
        _announce(settings, emulated)
        await stopper.wait()
        told = f"{counted(emulated.requests.seen, 'call')}, {emulated.count_429:,} answered 429"
    finally:
        await emulated.aclose()
    settings.note(f"Stopped after {told}.")


def _seeds(stopper: Stopper, count: int) -> Iterator[tuple[int, int, str]]:
    for item in sample_values(count):
        if stopper.stopped:
            return
        yield item.customer_id, item.attribute_id, item.value


def _announce(settings: Settings, emulated: Sandbox) -> None:
    variables = emulated.environment
    if settings.json:
        connection = {
            "command": "sandbox",
            "url": emulated.url,
            "port": emulated.port,
            "page": f"{emulated.url}/",
            "control": f"{emulated.url}/sandbox",
            "store_hash": emulated.store_hash,
            # It opens nothing but this emulation.
            "access_token": emulated.access_token,
            **variables,
        }
        settings.summarize("", connection)
    settings.note(f"Serving {emulated.url} until Ctrl-C.")
    settings.note(f"In the browser: {emulated.url}/")
    if settings.json:
        return
    settings.note("In another shell:")
    for name, value in variables.items():
        click.echo(f"export {name}={shlex.quote(value)}")
