"""`sandbox`: an emulated store to try things against."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterator
from typing import Any

import click

from bc_attrvals.cli.console import print_result
from bc_attrvals.cli.interrupts import Stopper, run
from bc_attrvals.cli.options import examples
from bc_attrvals.cli.sample_data import sample_values
from bc_attrvals.cli.sandbox_options import emulated_store, store_options
from bc_attrvals.cli.settings import Settings, with_settings
from bc_attrvals.sandbox import FaultKind, Sandbox
from bc_attrvals.tables.error_text import counted


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
  applied=yes|no                 whether the call is applied all the same"""


@click.command(
    epilog=_fault_help()
    + "\n\n"
    + examples(
        "bc-attrvals sandbox --port 8080 --seed-values 10000",
        "bc-attrvals sandbox --plan pro --latency-ms 80 --fault 503=5% --fault drop_after=0.01",
        "bc-attrvals sandbox --fault 429,operation=upsert,times=3 --fault slow=0.1,delay_s=2",
        "bc-attrvals sandbox --quirks-from bc-attrvals-probe.json",
        "bc-attrvals sandbox --customer 7=ann@example.org --attribute Tier=string",
        "bc-attrvals sandbox --proxy     (for an SDK that calls api.bigcommerce.com)",
        "bc-attrvals sandbox --json      (one line for another program to read)",
        "curl http://127.0.0.1:8080/sandbox/state",
    )
)
@store_options
@with_settings
def sandbox(
    settings: Settings,
    /,
    *,
    seed_values: int,
    **options: Any,  # noqa: ANN401 - those of `emulated_store`
) -> None:
    """Serve an emulated store until Ctrl-C, and print how to reach it.

    It has the service's rules: the quota, ten values a call, three PUTs at once. Its address is
    also a page for the browser, with rows, requests, quota, faults and quirks. The same is JSON
    under /sandbox (GET /sandbox lists it), for test suites in other languages. With --proxy any
    SDK is tested unchanged: set the variables that are printed.

    Exit status: 0 when stopped by Ctrl-C or SIGTERM, 2 for usage, or a port or file that is not
    available.
    """
    emulated = emulated_store(**options)
    run(lambda stopper: _serve(stopper, settings, emulated, seed_values), grace_s=None)


async def _serve(stopper: Stopper, settings: Settings, emulated: Sandbox, seed_values: int) -> None:
    try:
        await emulated.start()
    except (ValueError, RuntimeError) as error:
        raise click.UsageError(str(error)) from None
    try:
        await emulated.seed(_seeds(stopper, seed_values))
        if stopper.stopped:
            settings.note("Stopped before it served.")
            return
        _announce(settings, emulated)
        await stopper.wait()
        served = f"{counted(emulated.requests.seen, 'call')}, {emulated.count_429:,} answered 429"
    finally:
        await emulated.aclose()
    settings.note(f"Stopped after {served}.")


def _seeds(stopper: Stopper, count: int) -> Iterator[tuple[int, int, str]]:
    for item in sample_values(count):
        if stopper.stopped:
            return
        yield item.customer_id, item.attribute_id, item.value


def _announce(settings: Settings, emulated: Sandbox) -> None:
    addresses = emulated.addresses
    variables = emulated.environment
    if addresses.proxy_url is not None:
        variables |= emulated.proxy_environment
    if settings.json:
        connection: dict[str, object] = {
            "command": "sandbox",
            "url": addresses.url,
            "port": addresses.port,
            "page": f"{addresses.url}/",
            "control": f"{addresses.url}/sandbox",
            "store_hash": emulated.store_hash,
            # It opens nothing but this emulation.
            "access_token": emulated.access_token,
            "ca_file": addresses.ca_file,
            "proxy_url": addresses.proxy_url,
            **variables,
        }
        settings.summarize("", connection)
    settings.note(f"Serving {emulated.url} until Ctrl-C.")
    settings.note(f"In the browser: {emulated.url}/")
    if settings.json:
        return
    settings.note("In another shell:")
    for name, value in variables.items():
        print_result(f"export {name}={shlex.quote(value)}")
