"""`upsert`: values of a file into the store."""

from __future__ import annotations

import click

from bc_attrvals.cli.asking import confirm
from bc_attrvals.cli.running import Job, run_job
from bc_attrvals.cli.settings import Settings, with_store_settings
from bc_attrvals.cli.text import examples
from bc_attrvals.cli.upserting import JournalledUpsertJob, UpsertDryRunJob, UpsertJob
from bc_attrvals.cli.value_file import ValueFile, value_file_options
from bc_attrvals.tables.text import counted


@click.command(
    epilog=examples(
        "bc-attrvals upsert values.csv --failures failed.csv",
        "bc-attrvals upsert values.csv --journal values.db",
        "bc-attrvals upsert - --format jsonl < values.jsonl",
        "bc-attrvals upsert crm.csv --column customer_id=CustomerNo",
        "bc-attrvals upsert scores.parquet --failures failed.parquet",
        "bc-attrvals upsert s.csv --wide --customer-column ID --attribute x=1 --attribute zbar=4",
        "bc-attrvals upsert s.csv --wide --customer-column ID --attribute x=1 --empty delete",
        "bc-attrvals upsert crm.csv --wide --email-column E-Mail --attributes-by-header",
    )
)
@value_file_options
@with_store_settings
def upsert(settings: Settings, source: ValueFile) -> None:
    """Store the values of FILE (- is standard input); create them or replace what is there.

    The long form has the columns customer_id or email, attribute_id or attribute (its name), and
    value; with --wide a row holds a customer's values. Other columns are ignored, unless
    --attributes-by-header. CSV is delimited by comma, semicolon, tab or bar, as its header shows,
    or by --delimiter.

    Values are sent as the strings in the file. Numbers, booleans and dates of JSON Lines and
    Parquet become strings without loss. 5.0 is the id 5. Blank rows are skipped.

    In wide form empty cells are left alone. With --empty delete their values are deleted: after all
    values are sent, what is stored for the empty cells is looked up and deleted.
    A field that an object of JSON Lines does not have is left alone even then.

    All rows are checked before anything is sent; --dry-run stops there. Of rows with the same
    customer and attribute the last one wins. An upsert may be repeated without harm. After an
    interruption run it again, or give it the --failures file with the same options. With --journal
    the same again sends only what was not confirmed. After --empty delete the failures are in long
    form.
    """
    shape = source.check(settings)
    store = settings.store(source.limits)
    with source.opened(settings, shape) as values:
        values.warn_if_none()
        if source.asks and values.cells is not None and values.cells.count:
            what = f"the stored values of {counted(values.cells.count, 'empty cell')}"
            confirm(f"Delete {what} after the upsert?", "nothing was sent")
        job: Job = UpsertJob(values, source.limits)
        if source.dry_run:
            job = UpsertDryRunJob(values, source.limits)
        elif source.journal is not None:
            job = JournalledUpsertJob(values, source)
        run_job(settings, store, job)
