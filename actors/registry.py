"""The broker that all actors are registered on, with its middleware."""

from __future__ import annotations

from collections.abc import Callable

import dramatiq
from dramatiq.middleware import AgeLimit, Callbacks, Pipelines, ShutdownNotifications

from actors.context import set_settings
from actors.context import settings as settings_now
from actors.egress.plugin import destination_plugins
from actors.llm.model_provider import warm_providers
from actors.llm.plugin_providers import provider_plugins
from actors.plugin_modules import pool_arguments
from middleware.approval_expiry import ApprovalExpiry
from middleware.async_actors import AsyncActors
from middleware.broker.admission import make_admission, make_scripts
from middleware.broker.approvals import Approvals
from middleware.broker.broker import BridgeBroker
from middleware.broker.vitals import watchdog_paths
from middleware.cancellation import Cancellation
from middleware.context import JobInterrupted
from middleware.current_job import CurrentJob
from middleware.group_callbacks import BridgeGroupCallbacks
from middleware.heartbeat import Heartbeat
from middleware.job.keys import LLM_QUEUE
from middleware.job.reader import Reader
from middleware.job.types import JOB_TYPES
from middleware.lifecycle import Lifecycle
from middleware.plugin_order import add_plugin_middleware
from middleware.policy import AttemptPolicy
from middleware.progress import Progress
from middleware.receipts import Receipts
from middleware.recovery import Recovery
from middleware.results import job_results
from middleware.retention import Retention
from middleware.retries import Retries
from middleware.streams.channels import WorkerAttach
from middleware.time_limit import TimeLimit
from middleware.tracing import Tracing
from middleware.type_publisher import TypePublisher
from middleware.watchdog_client import WatchdogClient
from ops.environment import variable
from ops.errors import JobFailed
from ops.logs import configure_logging
from ops.plugins import log_broken_plugins
from ops.settings.load import LoadedSettings
from ops.store.client import Store


def _boot(broker: BridgeBroker, loaded: LoadedSettings, unit: str) -> None:
    """Set up the logging of a worker process and its pool, and load the plug-ins that its actors use."""
    configure_logging(loaded, process=unit)
    pool = pool_arguments()
    broker.carries_built_in = pool.is_main
    broker.left_queues = frozenset(variable("BRIDGE_LEFT_QUEUES").split())
    consumed = broker.get_declared_queues()
    if LLM_QUEUE in (consumed & pool.queues if pool.queues else consumed):
        warm_providers(loaded.settings.ask)
    provider_plugins()
    destination_plugins()
    if not variable("BRIDGE_PLUGINS_LOGGED"):
        log_broken_plugins()


def build_broker(loaded: LoadedSettings) -> BridgeBroker:
    """Return the broker with all its middleware and every built-in actor; it connects to nothing yet.

    It is also Dramatiq's global broker from then on.

    Args:
        loaded: The settings of this process.

    Raises:
        SettingsError: ``redis_url`` is malformed.
    """
    broker = make_broker(loaded)
    _declare(broker)
    dramatiq.set_broker(broker)
    return broker


def make_broker(loaded: LoadedSettings) -> BridgeBroker:
    """Return a broker with all middleware and no actor.

    Args:
        loaded: Settings of this process.

    Raises:
        SettingsError: ``redis_url`` is malformed.
    """
    settings = loaded.settings
    set_settings(loaded)
    store = Store.open(loaded)
    scripts = make_scripts(store, settings)
    admission = make_admission(scripts, settings)
    admission.follow_settings(lambda: settings_now().settings)
    reader = Reader(store, settings.key_prefix)
    approvals = Approvals(scripts, ttl_s=settings.approval_ttl_s)
    policy = AttemptPolicy(lambda since_s: settings_now(since_s).settings, approvals, admission.types)
    progress = Progress(interval_s=settings.progress_interval_s, output_max_bytes=settings.output_max_bytes)
    current = make_current_job(progress, reader, store, lambda: broker.worker_id, settings.kill_grace_s)
    unit = variable("BRIDGE_UNIT") or "worker"
    # Outermost first: before_... hooks run from top to bottom, after_... hooks from bottom to top. So what an
    # attempt raised goes to Cancellation, Retries and Receipts, in this order; and Heartbeat has given up the
    # lease when WatchdogClient disconnects. The policy is last of ours: the time limit bounds its wait.
    broker = BridgeBroker(
        scripts,
        admission,
        lease_ms=int(settings.lease_s * 1000),
        middleware=[
            *([Tracing(settings.otel_endpoint)] if settings.otel_endpoint else []),
            AgeLimit(),  # the first one of Dramatiq's list too: what is put before it sees every outcome
            Lifecycle(
                current,
                shutdown_timeout_s=settings.worker_shutdown_timeout_s,
                on_boot=lambda: _boot(broker, loaded, unit),
            ),
            WatchdogClient(watchdog_paths(loaded), settings),
            # Dramatiq's own, told of an end when it is decided; what they enqueue is committed with it.
            Callbacks(),
            Pipelines(),
            BridgeGroupCallbacks(scripts),
            job_results(reader),
            Receipts(result_max_bytes=settings.result_max_bytes),
            Retries(settings),
            Heartbeat(interval_s=min(settings.heartbeat_s, settings.lease_s / 3)),
            Recovery(interval_s=max(0.5, settings.lease_s / 3)),
            ApprovalExpiry(approvals, ttl_s=settings.approval_ttl_s),
            Retention(retention_s=settings.retention_s, finished_max=settings.finished_max),
            progress,
            current,
            TimeLimit(current, settings),
            Cancellation(current),
            policy,
            TypePublisher(interval_s=settings.heartbeat_s),
            AsyncActors(),
            ShutdownNotifications(),
        ],
    )
    add_plugin_middleware(broker)
    return broker


def make_current_job(
    progress: Progress,
    reader: Reader,
    store: Store,
    worker_id: Callable[[], str],
    kill_grace_s: float,
) -> CurrentJob:
    """Return the middleware that gives a job its context.

    Args:
        progress: Takes its progress and output.
        reader: Knows the names of the channels of attached commands.
        store: The store.
        worker_id: Returns the id of this process's worker.
        kill_grace_s: Time between SIGTERM and SIGKILL for what an actor has started, in seconds.
    """
    attach = WorkerAttach(store, reader.keys).of_delivery
    return CurrentJob(progress.reporter, worker_id, attach, kill_grace_s=kill_grace_s)


def _declare(broker: BridgeBroker) -> None:
    """Register the actors of all built-in types; imports what they run."""
    for job_type in JOB_TYPES.declared():
        declare = dramatiq.actor(
            actor_name=job_type.name,
            queue_name=job_type.queue,
            broker=broker,
            throws=(JobFailed, JobInterrupted),
        )
        declare(job_type.function())
