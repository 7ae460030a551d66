"""`sandbox`: an emulated store to try things against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from bc_attrvals.cli.interrupts import Stopper, run
from bc_attrvals.cli.sample import sample_values
from bc_attrvals.cli.settings import Settings, output_options, pass_settings
from bc_attrvals.cli.text import counted, examples
from bc_attrvals.sandbox import Fault, Sandbox

__all__ = ["quota_option", "sandbox"]


F = TypeVar("F", bound=Callable[..., Any])


def _quota(ctx: click.Context, param: click.Parameter, text: str) -> int | None:
    if text.lower() == "none":
        return None
    if text.isascii() and text.isdigit() and 0 < len(text) < 10:
        return int(text)
    raise click.BadParameter(f"{text!r} is neither a number nor none", ctx=ctx, param=param)


def quota_option(default: str) -> Callable[[F], F]:
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
        kind, equals, probability = text.partition("=")
        try:
            faults.append(Fault(kind, probability=float(probability) if equals else 1.0))
        except ValueError as error:
            raise click.BadParameter(f"{text!r}: {error}", ctx=ctx, param=param) from None
    return faults


@click.command(
    epilog=examples(
        "bc-attrvals sandbox --port 8080 --seed-values 10000",
        "bc-attrvals sandbox --quota none --latency-ms 80 --fault 503=0.05 --fault drop_after=0.01",
    )
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="By default a free one.")
@click.option(
    "--database", default=":memory:", metavar="FILE", help="Keeps the values for the next time."
)
@quota_option("150")
@click.option("--window-s", type=float, default=30.0, show_default=True, help="Of the quota.")
@click.option("--latency-ms", type=float, default=0.0, help="Before each call is applied.")
@click.option(
    "--fault",
    "faults",
    multiple=True,
    callback=_faults,
    metavar="KIND=PROBABILITY",
    help="Calls that go wrong, such as 503=0.05, drop_after=0.01 or hang=0.001. Repeatable.",
)
@click.option(
    "--seed-values", type=click.IntRange(0), default=0, metavar="N", help="Begin with N values."
)
@output_options()
@pass_settings
def sandbox(
    settings: Settings,
    *,
    port: int,
    database: str,
    quota: int | None,
    window_s: float,
    latency_ms: float,
    faults: list[Fault],
    seed_values: int,
) -> None:
    """Serve an emulated store on 127.0.0.1 until Ctrl-C, and print how to reach it.

    It has the service's rules: the quota, ten values a call, three calls at once.
    """
    try:
        emulated = Sandbox(
            database,
            quota=quota,
            window_s=window_s,
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
        await emulated.seed(
            (item.customer_id, item.attribute_id, item.value) for item in sample_values(seed_values)
        )
        _announce(settings, emulated)
        await stopper.wait()
        told = f"{counted(emulated.requests.seen, 'call')}, {emulated.count_429:,} answered 429"
    finally:
        await emulated.aclose()
    settings.note(f"Stopped after {told}.")


def _announce(settings: Settings, emulated: Sandbox) -> None:
    variables = {
        "BIGCOMMERCE_API_URL": emulated.url,
        "BIGCOMMERCE_STORE_HASH": emulated.store_hash,
        # It opens nothing but this emulation.
        "BIGCOMMERCE_ACCESS_TOKEN": emulated.access_token,
    }
    settings.note("Serving until Ctrl-C; in another shell:")
    if settings.json:
        settings.summarize("", {"command": "sandbox", "port": emulated.port, **variables})
        return
    for name, value in variables.items():
        click.echo(f"export {name}={value}")
