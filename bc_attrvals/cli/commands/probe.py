"""`probe`: ask a test store what the reference leaves open, and put back what was written."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Final, NoReturn

import click
import msgspec

from bc_attrvals.cli.attribute_names import id_or_name
from bc_attrvals.cli.console import confirm, need_terminal, refuse
from bc_attrvals.cli.interrupts import Stopper, run
from bc_attrvals.cli.options import command, file_option, flag, repeatable
from bc_attrvals.cli.path_conflicts import check_paths
from bc_attrvals.cli.settings import Settings, with_store_settings
from bc_attrvals.errors import RestoreError
from bc_attrvals.probe.facts import FACTS, Fact
from bc_attrvals.probe.restore import read_state, remove_state, restore
from bc_attrvals.probe.run import Probe, ProbeReport
from bc_attrvals.probe.target import Target
from bc_attrvals.probe.wire import MOST_CALLS, Wire
from bc_attrvals.tables.error_text import counted, one_line
from bc_attrvals.tables.files import STANDARD, OutputFile

_WIDTH: Final = 100


def _ids_or_names(given: Sequence[str]) -> list[int | str]:
    return [id_or_name(text) for text in given]


@command(
    "bc-attrvals probe --customer 7 --attribute 'Loyalty tier'",
    "bc-attrvals probe --customer 7 --customer 8 --attribute Tier --attribute Age --yes",
    "bc-attrvals probe --restore bc-attrvals-probe.state",
)
@click.option(
    "--customer",
    "customers",
    type=click.IntRange(1, 2**31 - 1),
    multiple=True,
    metavar="ID",
    help="A customer of whom values are written. Repeatable.",
)
@repeatable(
    "--attribute",
    "attributes",
    "ID_OR_NAME",
    _ids_or_names,
    "An attribute whose values are written; digits are an id, name:2024 is the name 2024.",
)
@file_option(
    "--output", default="bc-attrvals-probe.json", show_default=True, text="Gets the facts as JSON."
)
@file_option(
    "--state",
    default="bc-attrvals-probe.state",
    show_default=True,
    text="Keeps what the values held until it is put back.",
)
@file_option(
    "--restore",
    "restored",
    text="Put back what a probe that was killed had written; FILE is its --state.",
)
@flag("--yes", "Do not ask.")
@with_store_settings
def probe(
    settings: Settings,
    *,
    customers: Sequence[int],
    attributes: Sequence[int | str],
    output: str,
    state: str,
    restored: str | None,
    yes: bool,
) -> None:
    """Settle facts of the service that are not documented, on a test store of yours.

    Values of the named customers and attributes are written, and put back at the end, also after
    Ctrl-C; nothing else is. Best is a customer without a value of the attribute: a value that is
    there is never deleted, and its date_modified changes. A value with blanks around it is left
    alone, because a store that removes them could not take it back. More customers and attributes,
    up to 12 values, and attributes of type number and date settle more. Each fact says how it was
    seen, or why it is not settled. `Quirks.from_probe(FILE)` and `Limits.from_probe(FILE)` read the
    file, which holds no id, no value, no address and no token.
    """
    if restored is not None:
        refuse(customers or attributes, "--restore takes no --customer and no --attribute")
        _restore(settings, Path(restored))
    words = "name what may be written: --customer ID --attribute ID_OR_NAME"
    refuse(not customers or not attributes, words)
    need_terminal(yes=yes, stdin_taken=False, what="probes")
    check_paths([], [("--output", output), ("--state", state)], json=settings.json)
    how = f"bc-attrvals probe --restore {shlex.quote(state)}"
    # Each once: a second one would be the same value.
    people, named = list(dict.fromkeys(customers)), list(dict.fromkeys(attributes))
    with OutputFile(output) as file:

        async def main(stopper: Stopper) -> ProbeReport:
            session, store_hash, base_url = settings.session()
            async with aclosing(session):
                asked = await Probe.prepare(Wire(session, store_hash, base_url), people, named)
                if asked.can_write and not yes:
                    with stopper.raising_interrupts():
                        confirm(_question(asked.target, store_hash), "nothing was written")
                stopper.exit_hint = lambda: f" To restore: {how}" if Path(state).exists() else ""
                try:
                    return await asked.run(Path(state), settings.note)
                except RestoreError as error:
                    raise RestoreError(f"{error}; {how}") from None

        report = run(main)
        document = report.to_dict()
        text = msgspec.json.format(msgspec.json.encode(document), indent=2).decode()
        file.text.write(text + "\n")
        file.commit()
    facts = report.facts
    settled = sum(one.settled for one in facts.values())
    headline = (
        f"{settled} of {counted(len(facts), 'fact')} settled in {counted(report.calls, 'call')}; "
        f"everything is as before. The file: {output}"
    )
    table = "\n".join([*map(_line, facts, facts.values()), headline])
    settings.finish("probe", table, {"output": output, **document}, err=output == STANDARD)


def _question(target: Target, store_hash: str) -> str:
    there = sum(row is not None for row in target.before.values())
    customers = ", ".join(map(str, target.customers))
    names = ", ".join(f"{one.name or one.id}" for one in target.attributes)
    return one_line(
        f"At most {MOST_CALLS} calls to store {store_hash}. Write "
        f"{counted(len(target.keys), 'value')} (customer {customers}, attribute {names}; {there} "
        "there now), and put back what is there?"
    )


def _line(name: str, fact: Fact) -> str:
    shown = _shown(fact) if fact.settled else f"not settled: {fact.how}"
    return one_line(f"  {FACTS[name]:<42}  {shown}", _WIDTH)


def _shown(fact: Fact) -> str:
    value = fact.value
    if isinstance(value, dict):
        return ", ".join(f"{name}: {one}" for name, one in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"none up to {fact.largest}" if value is None else str(value)


def _restore(settings: Settings, path: Path) -> NoReturn:
    async def main(_: Stopper) -> tuple[int, int]:
        session, store_hash, base_url = settings.session()
        async with aclosing(session):
            wire = Wire(session, store_hash, base_url)
            try:
                changed = await restore(wire, read_state(path, wire.place))
            except RestoreError as error:
                raise RestoreError(f"{error}; {path} is kept, so run the same again") from None
            remove_state(path)
            return changed, wire.calls

    changed, calls = run(main)
    text = f"Restored {counted(changed, 'value')}; everything is as before the probe."
    settings.finish("probe", text, {"restored": changed, "calls": calls})
