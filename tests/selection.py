"""Which tests are slow, which need a browser or the kernel's namespaces, and which share a process.

``tests/conftest.py`` applies it: the marks to select by (``-m "not slow"``), and the portions that
``pytest -n`` gives to each of its processes. A test whose figures need an idle machine is marked ``serial``
in its own file.
"""

from __future__ import annotations

from pathlib import PurePosixPath

#: Files that a quick check does without, with their seconds on two cores.
SLOW: dict[str, int] = {
    "tests/deploy/test_plugins.py": 25,
    "tests/job_types/test_own_actors.py": 35,
    "tests/job_types/test_pages.py": 25,
    "tests/job_types/test_surfaces.py": 15,
    "tests/job_types/test_one_file.py": 10,
    "tests/rest/test_types.py": 8,
    "tests/cli/test_services.py": 40,
    "tests/faults/test_watchdog.py": 64,
    "tests/chaos/test_short.py": 35,
    "tests/faults/test_scale.py": 15,
    "tests/shell/test_demo.py": 20,
    "tests/deploy/test_netns.py": 25,
    "tests/actors/test_ask_local.py": 41,
    "tests/clock/test_clocks.py": 40,
    "tests/telegram/test_crashes.py": 25,
    "tests/projects/test_concurrency.py": 10,
    "tests/projects/test_hosts.py": 20,
    "tests/projects/test_stopping.py": 20,
    "tests/archive/test_sealing.py": 15,
    "tests/deploy/test_writing.py": 15,
    "tests/faults/test_late_commit.py": 20,
    "tests/station/test_station.py": 26,
    "tests/station/test_crashes.py": 16,
    "tests/station/test_retry.py": 20,
    "tests/station/test_tree.py": 8,
    "tests/rest/test_outage.py": 18,
    "tests/rest/test_contract.py": 20,
    "tests/rest/test_crash.py": 12,
    "tests/cli/test_jobs.py": 20,
    "tests/cli/test_watch.py": 18,
    "tests/faults/test_spooled.py": 16,
    "tests/cli/test_own_packages.py": 28,
    "tests/cli/test_pipes.py": 20,
    "tests/cli/test_work.py": 13,
    "tests/faults/test_attached.py": 12,
    "tests/ops/test_supervisor.py": 13,
    "tests/projects/test_track.py": 13,
    "tests/cli/test_acts.py": 13,
    "tests/actors/test_ask_bridge.py": 12,
    "tests/actors/test_llm_unit.py": 15,
    "tests/dispatch/test_faults.py": 12,
    "tests/deploy/test_tracing.py": 10,
    "tests/faults/test_outages.py": 10,
    "tests/telegram/test_bot.py": 9,
    "tests/actors/test_stopping.py": 8,
    "tests/projects/test_graph.py": 8,
    "tests/projects/test_docs.py": 8,
    "tests/projects/test_worktree.py": 5,
    "tests/rest/test_auth.py": 8,
    "tests/rest/test_live_settings.py": 6,
    "tests/rest/test_descriptors.py": 6,
    "tests/rest/test_events.py": 5,
    "tests/cli/test_main.py": 7,
    "tests/cli/test_start_checks.py": 15,
    "tests/cli/test_status.py": 5,
    "tests/cli/test_tree.py": 5,
    "tests/shell/test_prompt.py": 10,
    "tests/shell/test_script.py": 8,
    "tests/shell/test_memory.py": 5,
    "tests/shell/test_documented.py": 2,
    "tests/faults/test_spool.py": 6,
    "tests/faults/test_master.py": 6,
    "tests/faults/test_full_disk.py": 4,
    "tests/faults/test_presence.py": 4,
    "tests/archive/test_missing.py": 6,
    "tests/dispatch/test_quiet.py": 4,
    "tests/middleware/test_group_commit.py": 6,
    "tests/middleware/test_work_queue.py": 4,
    "tests/egress/test_deliveries.py": 4,
    "tests/deploy/test_deploy.py": 4,
    "tests/actors/test_ingest_model_decision.py": 12,
    "tests/upgrade/test_workspace.py": 10,
    "tests/docs/test_examples.py": 6,
    "tests/docs/test_first_steps.py": 6,
    "tests/rest/test_docs.py": 3,
    "tests/deploy/test_docs.py": 5,
    "tests/station/test_docs.py": 5,
    "tests/governance/test_doors.py": 4,
    "tests/governance/test_worker.py": 3,
    "tests/middleware/test_interleavings.py": 5,
}
#: A real browser, with the seconds of each file.
BROWSER: dict[str, int] = {
    "tests/dashboard/test_many.py": 30,
    "tests/dashboard/test_reading.py": 15,
    "tests/dashboard/test_access.py": 10,
    "tests/dashboard/test_live.py": 10,
    "tests/dashboard/test_outage.py": 10,
    "tests/archive/test_history_doors.py": 15,
}
#: Network namespaces of the kernel.
NETNS = ("tests/deploy/test_netns.py",)
#: Folders whose tests share a bridge: one process of ``pytest -n`` runs them, so that it is started once.
TOGETHER = (
    "tests/dashboard",
    "tests/dispatch",
    "tests/egress",
    "tests/governance",
    "tests/middleware",
    "tests/rest",
    "tests/shell",
    "tests/telegram",
)


#: Files whose tests import the model library, which takes seconds: they share one process.
MODELS = (
    "tests/actors/test_ask.py",
    "tests/actors/test_ask_budget.py",
    "tests/actors/test_ask_docs.py",
    "tests/actors/test_ask_providers.py",
    "tests/actors/test_ingest_model_decision.py",
    "tests/actors/test_model_connection.py",
    "tests/actors/test_odd_models.py",
    "tests/actors/test_structured_answer.py",
)


def marks_of(file: str) -> list[str]:
    """Return the names of the marks of a file's tests.

    Args:
        file: Its path from the repository, with slashes.
    """
    groups = {"slow": SLOW, "browser": BROWSER, "netns": NETNS}
    return [name for name, files in groups.items() if file in files]


def portion_of(file: str) -> str:
    """Return the name of the portion that a file belongs to: its folder, or itself."""
    if file in MODELS:
        return "models"
    folder = str(PurePosixPath(file).parent)
    return folder if folder in TOGETHER else file


def seconds_of(portion: str) -> int:
    """Return about how long a portion takes; those that take longest are begun first."""
    known = SLOW | BROWSER
    return sum(seconds for file, seconds in known.items() if portion_of(file) == portion)
