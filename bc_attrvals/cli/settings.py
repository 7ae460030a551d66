"""The settings of every command: which store, how much output; and the options that set them.

The options are taken before the command and after it. The one given last on the line wins; the
environment comes last.
"""

from __future__ import annotations

import errno
import logging
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import attrs
import click
import msgspec

from bc_attrvals.cli.console import refuse, warn
from bc_attrvals.cli.options import F, with_options
from bc_attrvals.cli.standard_streams import leave
from bc_attrvals.core.limits import Limits
from bc_attrvals.core.requests import DEFAULT_BASE_URL
from bc_attrvals.tables.error_text import one_line

# The client is loaded by what talks to a store: help does not wait for it.
if TYPE_CHECKING:
    from bc_attrvals.events import Event
    from bc_attrvals.scheduling.quota import Quota
    from bc_attrvals.store import Store
    from bc_attrvals.transport.session import Session

_USER_AGENT = "bc-attrvals-cli"
_LIMITS = Limits()


@attrs.define
class Settings:
    """The options of the whole line; kept as the context's object."""

    url: str | None = None
    store_hash: str | None = None
    access_token: str | None = attrs.field(default=None, repr=False)
    #: This URL and the next may hold a password.
    proxy: str | None = attrs.field(default=None, repr=False)
    shared_quota: str | None = attrs.field(default=None, repr=False)
    verbose: bool = False
    quiet: bool = False
    json: bool = False
    #: Whether the one object of `--json` was printed.
    printed: bool = False

    def store(self, limits: Limits = _LIMITS) -> Store:
        """Return the Store the options and the environment name, not entered.

        Raises `click.UsageError` for a missing option, `InvalidInputError` for a bad one.
        """
        from bc_attrvals.store import Store

        store_hash, access_token, base_url = self._named_store()
        quota: Quota | None = None
        if self.shared_quota:
            from bc_attrvals.shared_quota import RedisQuota

            quota = RedisQuota(self.shared_quota)
        store = Store(
            store_hash,
            access_token,
            base_url=base_url,
            proxy=self.proxy or None,
            trust_env=self._trusts_environment(base_url),
            user_agent=_USER_AGENT,
            limits=limits,
            quota=quota,
        )
        if quota is not None:
            store.subscribe(_warn_of_quota)
        return store

    def session(self) -> tuple[Session, str, str]:
        """Return a session without scheduler on that store, its hash and the base URL.

        It is for a probe, which looks at every answer and closes it. Raises as `store`.
        """
        from bc_attrvals.store_arguments import checked_base_url, full_user_agent
        from bc_attrvals.transport.proxies import proxy_of_environment
        from bc_attrvals.transport.session import Session

        store_hash, access_token, base_url = self._named_store()
        # Making a Store checks the arguments.
        self.store()
        base_url = checked_base_url(base_url)
        proxy = self.proxy or None
        if proxy is None and self._trusts_environment(base_url):
            proxy = proxy_of_environment(base_url)
        session = Session(
            base_url,
            access_token,
            user_agent=full_user_agent(_USER_AGENT),
            max_response_bytes=_LIMITS.max_response_bytes,
            proxy=proxy,
        )
        return session, store_hash, base_url

    def _named_store(self) -> tuple[str, str, str]:
        store_hash, token = self.store_hash or "", self.access_token or ""
        refuse(not store_hash, "no store: give --store-hash or set BIGCOMMERCE_STORE_HASH")
        refuse(not token, "no access token: set BIGCOMMERCE_ACCESS_TOKEN or give --access-token")
        return store_hash, token, self.url or DEFAULT_BASE_URL

    def _trusts_environment(self, base_url: str) -> bool:
        # Plain HTTP is loopback, which no proxy reaches.
        return not self.proxy and not base_url.lower().startswith("http:")

    def summarize(self, text: str, summary: dict[str, object], *, err: bool = False) -> int:
        """Print the closing summary: text, or with `--json` the object, once, on stdout.

        Return the exit status of the summary. Where standard output can't be written, as on a full
        disk, the summary goes to stderr and the status is 1 at least. A closed one was not wanted,
        and only `--json` fails.
        """
        status = summary.get("exit_status", 0)
        assert isinstance(status, int)
        if (self.quiet and not self.json) or self.printed:
            return status
        self.printed = self.json

        def show(*, err: bool) -> None:
            click.echo(msgspec.json.encode(summary).decode() if self.json else text, err=err)

        try:
            show(err=err)
        except BrokenPipeError:
            raise
        except OSError as error:
            leave(sys.stdout)
            if error.errno == errno.EBADF and not self.json:
                show(err=True)
                return status
            status = status or 1
            problem = f"standard output: {error.strerror or error}"
            summary |= {"exit_status": status, "error": summary.get("error") or problem}
            show(err=True)
            click.echo(f"Error: {problem}", err=True)
        return status

    def finish(
        self,
        command: str,
        text: str,
        fields: Mapping[str, object],
        status: int = 0,
        *,
        err: bool = False,
    ) -> NoReturn:
        """Print the closing summary of a command, and exit with its status."""
        summary = {"command": command, "exit_status": status, **fields}
        click.get_current_context().exit(self.summarize(text, summary, err=err))

    def note(self, text: str) -> None:
        """Say something in passing, on stderr."""
        if not self.quiet:
            click.echo(one_line(text), err=True)


def _warn_of_quota(event: Event) -> None:
    from bc_attrvals.events import SharedQuotaLost, SharedQuotaRegained

    if isinstance(event, SharedQuotaLost):
        share = f"{event.share:.0%}" if event.share else "one call"
        warn(
            f"the server of the shared quota is out of reach ({event.reason}); "
            f"going on with {share} of each window"
        )
    elif isinstance(event, SharedQuotaRegained):
        known = ", and had forgotten everything" if event.forgotten else ""
        warn(f"the server of the shared quota is back after {event.lost_s:.1f} s{known}")


_pass_settings = click.make_pass_decorator(Settings, ensure=True)


def _remember(ctx: click.Context, param: click.Parameter, value: object) -> None:
    settings = ctx.ensure_object(Settings)
    if value is None or value is False or param.name is None:
        return
    if param.name == "verbose" and not settings.verbose:
        _log_to_stderr(ctx)
    setattr(settings, param.name, value)


def _log_to_stderr(ctx: click.Context) -> None:
    # Only our own loggers, which log no token and no customer's value; others might.
    logger = logging.getLogger("bc_attrvals")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)

    def undo() -> None:
        logger.removeHandler(handler)
        logger.setLevel(level)

    ctx.find_root().call_on_close(undo)


#: Name, variable of the environment, and help.
_CONNECTION = (
    (
        "shared-quota",
        "BIGCOMMERCE_SHARED_QUOTA",
        "redis://... to share the quota with other processes; better set the variable.",
    ),
    ("proxy", None, "http://[user:password@]host[:port] [default: HTTPS_PROXY, NO_PROXY]"),
    ("url", "BIGCOMMERCE_API_URL", f"Base URL [default: {DEFAULT_BASE_URL}]"),
    ("store-hash", "BIGCOMMERCE_STORE_HASH", "The store, as in its API path."),
    ("access-token", "BIGCOMMERCE_ACCESS_TOKEN", "Better set the variable: ps shows this."),
)
_OUTPUT = (
    ("json", "Print one JSON object as summary on stdout."),
    ("verbose", "Log every request on stderr (no token, no values)."),
    ("quiet", "No progress, no summary; errors are still printed."),
)


def _setting(name: str, text: str, **more: Any) -> Callable[[F], F]:  # noqa: ANN401 - click's own
    return click.option(f"--{name}", expose_value=False, callback=_remember, help=text, **more)


def connection_options(function: F, *, environment: bool = False, most: int | None = None) -> F:
    """Add `--shared-quota --proxy --url --store-hash --access-token`, the first `most` of them.

    The environment is read before the command.
    """
    options = [
        _setting(
            name,
            text,
            envvar=variable if environment else None,
            show_envvar=environment and variable is not None,
            metavar="TEXT",
        )
        for name, variable, text in _CONNECTION[:most]
    ]
    return with_options(function, options)


def output_options(function: F) -> F:
    """Add `--json --verbose --quiet`."""
    # Eager: known before an error in another option is printed.
    options = [_setting(name, text, is_flag=True, is_eager=True) for name, text in _OUTPUT]
    return with_options(function, options)


def with_settings(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of the output; the command gets the `Settings` first."""
    return output_options(_pass_settings(function))


def with_store_settings(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of the connection and of the output; the command gets the `Settings`."""
    return connection_options(with_settings(function))
