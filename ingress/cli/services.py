"""Commands that run the bridge or inspect it: ``up``, ``down``, ``worker``, ``config``, ``doctor``."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import click
import msgspec

from ingress.cli.shared import json_option
from ingress.cli.stopping import await_stop, explain_stop
from ingress.core.api_address import known_url
from ingress.core.terminal import emit_json, note
from ingress.core.type_info import limit_rows
from ops.errors import SettingsError
from ops.processes import wait_ended
from ops.settings.load import LoadedSettings, Settings, load_settings
from ops.settings.rows import foreign_rows, rows_of
from ops.store.client import Store
from ops.store.embedded import EmbeddedValkey, find_binary
from ops.store.url import mask_password
from ops.supervision.state_file import claim, require_not_running, running_pid, sweep_leftovers
from ops.tokens import FIRST, Tokens
from ops.workspace import Workspace, default_home

#: Limit until everything is ready; a store that loads a large append-only file takes most of it.
START_TIMEOUT_S = 60.0
#: What `down` allows in addition to the workers' shutdown time: store, clean-up, a loaded machine.
STOP_SLACK_S = 20.0

workers_option = click.option(
    "--workers",
    type=click.IntRange(0, 256),
    metavar="N",
    help="Number of worker processes; overrides the setting.",
)
threads_option = click.option(
    "--threads",
    type=click.IntRange(1, 512),
    metavar="N",
    help="Jobs that one worker runs at a time; overrides the setting.",
)


@click.command()
@click.option("--detach", is_flag=True, help="Run in the background; return when everything is ready.")
@workers_option
@threads_option
def up(*, detach: bool, workers: int | None, threads: int | None) -> int:
    """Start the bridge and keep it running.

    Starts the store, the workers, the station, the REST API with the dashboard, the scheduler and, with a
    token, the Telegram bot. Ctrl-C or '3ox down' stops all of them.
    """
    from ingress.cli.start_checks import require_startable

    loaded = load_settings(overrides={"workers": workers, "threads": threads})
    require_not_running(loaded.workspace)
    require_startable(loaded)
    _require_store(loaded)
    with _first_token(loaded) as show_token:
        if detach:
            from ingress.cli.detach import run_detached

            code = run_detached(
                lambda ready: _serve(loaded, on_ready=ready),
                timeout_s=START_TIMEOUT_S + STOP_SLACK_S,
                log_file=loaded.workspace.log_file,
            )
            if code == 0:
                _print_summary(loaded, stop="3ox down")
                show_token()
            return code

        def announce() -> None:
            _print_summary(loaded, stop="Ctrl-C, or 3ox down")
            show_token()

        return _serve(loaded, on_ready=announce, on_stopping=partial(explain_stop, loaded))


@contextlib.contextmanager
def _first_token(loaded: LoadedSettings) -> Iterator[Callable[[], None]]:
    """Create an API token if there is none; yield a function that shows it once.

    A token that was not shown because the bridge did not start is revoked; the next start creates another.
    """
    tokens = Tokens(loaded.workspace, loaded.settings.api_token)
    token = tokens.make_first()
    shown = False

    def show() -> None:
        nonlocal shown
        if token is not None and not shown:
            click.echo(f"  {'token':<10} {token}  (API token, admin; shown only once)")
            sys.stdout.flush()
        shown = True

    try:
        yield show
    finally:
        if token is not None and not shown:
            tokens.revoke(FIRST)


def _require_store(loaded: LoadedSettings) -> None:
    """Check early what would otherwise fail in a program of the bridge.

    Raises:
        StartFailed: The embedded store is not installed.
        StoreUnreachable: The store that the settings name does not answer.
    """
    if loaded.embedded_store:
        find_binary()
        return
    Store.open(loaded).call("PING")


def _serve(
    loaded: LoadedSettings,
    *,
    on_ready: Callable[[], None],
    on_stopping: Callable[[float], None] | None = None,
) -> int:
    """Run the supervisor until it is told to stop; return the exit code."""
    from ingress.cli.programs import bridge_programs
    from ops.logs import configure_logging
    from ops.supervision.supervisor import Supervisor

    settings, workspace = loaded.settings, loaded.workspace
    with claim(workspace, grace_s=settings.kill_grace_s):
        configure_logging(loaded, process="up", console=False)
        with _embedded(loaded) as store:
            supervisor = Supervisor(
                bridge_programs(loaded, store),
                workspace,
                store_url=mask_password(loaded.store_url),
                start_timeout_s=START_TIMEOUT_S,
                kill_grace_s=settings.kill_grace_s,
                on_ready=on_ready,
                on_stopping=on_stopping,
            )
            return supervisor.run()


@contextlib.contextmanager
def _embedded(loaded: LoadedSettings) -> Iterator[EmbeddedValkey | None]:
    if not loaded.embedded_store:
        yield None
        return
    store = EmbeddedValkey(loaded)
    store.prepare()
    try:
        yield store
    finally:
        store.release()


def _print_summary(loaded: LoadedSettings, *, stop: str) -> None:
    settings = loaded.settings
    click.echo("The bridge is up.")
    for label, value in (
        ("workspace", loaded.workspace.home),
        ("log", loaded.workspace.log_file),
        ("store", mask_password(loaded.store_url)),
        ("workers", f"{settings.workers} x {settings.threads} threads" + _model_unit(loaded)),
        ("dashboard", known_url(loaded)),
        ("status", "3ox status"),
        ("try", "3ox sh -- echo hi"),
        ("stop", stop),
    ):
        click.echo(f"  {label:<10} {value}")
    # A reader behind a pipe waits for these lines.
    sys.stdout.flush()


def _model_unit(loaded: LoadedSettings) -> str:
    from ingress.cli.programs import has_model_unit

    threads = loaded.settings.threads
    return f", and one for language models x {threads} threads" if has_model_unit(loaded) else ""


@click.command()
@click.option(
    "--now", is_flag=True, help="Do not wait for running jobs; they run again after the next start."
)
def down(*, now: bool) -> int:
    """Stop the bridge of this workspace and everything it started.

    Running jobs have worker_shutdown_timeout_s (30 s) to end; stderr says how many there are.
    """
    workspace = Workspace(default_home())
    try:
        loaded = load_settings()
    except SettingsError as error:
        # A misspelt key must not prevent a stop.
        note(f"{error} Stopping with the default settings.")
        loaded = LoadedSettings(settings=Settings(), sources={}, workspace=workspace)
    settings = loaded.settings
    pid = running_pid(workspace)
    if pid is None:
        swept = sweep_leftovers(workspace, grace_s=settings.kill_grace_s)
        click.echo("Stopped the programs of a bridge that was killed." if swept else "Nothing is running.")
        return 0
    patience_s = settings.worker_shutdown_timeout_s + settings.kill_grace_s + STOP_SLACK_S
    if not await_stop(pid, loaded, patience_s=patience_s, now=now):
        note(f"the bridge (pid {pid}) did not stop within {patience_s:g} s; killing it.")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        wait_ended([pid], settings.kill_grace_s)
        sweep_leftovers(workspace, grace_s=settings.kill_grace_s)
    click.echo("Stopped.")
    return 0


@click.command()
@threads_option
def worker(*, threads: int | None) -> int:
    """Run one worker in the foreground, for systemd or for another host."""
    from ingress.cli.programs import watchdog_program, worker_program
    from ingress.cli.start_checks import check_network, check_types
    from ops.logs import configure_logging
    from ops.supervision.supervisor import Supervisor

    loaded = load_settings(overrides={"threads": threads})
    check_types(loaded)
    check_network(loaded)  # a wrong proxy is an error now, not in each delivery
    name = f"worker-{os.getpid()}"
    configure_logging(loaded, process=name)
    # No start limit: the worker waits for its store, as it does when the store becomes unavailable later.
    supervisor = Supervisor(
        [watchdog_program(loaded), worker_program(loaded, name, restart=False)],
        workspace=None,
        start_timeout_s=None,
        kill_grace_s=loaded.settings.kill_grace_s,
        on_ready=lambda: note(f"the worker is ready; log: {loaded.workspace.log_file}"),
    )
    return supervisor.run()


@click.command()
@json_option
def config(*, as_json: bool) -> int:
    """Show every setting with value, source and help; secrets are masked."""
    from ingress.cli.start_checks import check_types

    loaded = load_settings()
    check_types(loaded)
    rows = [
        row
        for setting in rows_of(loaded)
        for row in (setting, *(limit_rows(loaded.settings) if setting.name == "types" else ()))
    ]
    foreign = foreign_rows()
    if as_json:
        emit_json(
            {
                "workspace": str(loaded.workspace.home),
                "settings_file": str(loaded.workspace.settings_file),
                "settings": [row._asdict() for row in rows],
                "variables": [row._asdict() for row in foreign],
            },
        )
        return 0
    click.echo(f"# workspace {loaded.workspace.home}")
    tables = {row.name.rpartition(".")[0] for row in rows}
    for row in rows:
        click.echo(f"\n# {row.help}")
        if row.name in tables:
            click.echo(f"# [{row.name}]")
        elif row.value is None:
            click.echo(f"# {row.name} is not set  # {row.source}")
        else:
            click.echo(f"{row.name} = {_toml(row.value)}  # {row.source}")
    for row in foreign:
        # Not keys of 3ox.toml, which this output can be used as.
        click.echo(f"\n# {row.help}\n# {row.name} = {_toml(row.value)}  # {row.source}")
    return 0


def _toml(value: Any) -> str:
    # JSON and TOML agree on scalars and lists; a table is shown inline, without unset values.
    if isinstance(value, dict):
        items = (f"{_toml_key(key)} = {_toml(item)}" for key, item in value.items() if item is not None)
        return "{ " + ", ".join(items) + " }" if value else "{}"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return msgspec.json.encode(value).decode()


def _toml_key(key: str) -> str:
    bare = key.replace("_", "").replace("-", "").isalnum() and key.isascii()
    return key if bare else msgspec.json.encode(key).decode()


@click.command()
@json_option
def doctor(*, as_json: bool) -> int:
    """Check the installation and suggest remedies; exits 1 if there is a problem."""
    from ingress.cli.doctor_checks import run_checks

    findings = list(run_checks())
    healthy = all(finding.verdict != "bad" for finding in findings)
    if as_json:
        emit_json({"healthy": healthy, "checks": findings})
        return 0 if healthy else 1
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        remedy = f"  -> {finding.remedy}" if finding.remedy else ""
        click.echo(f"{finding.verdict:<4}  {finding.name:<{width}}  {finding.found}{remedy}")
    return 0 if healthy else 1


COMMANDS = [up, down, worker, config, doctor]
