"""Projects and rules apply as soon as the file is saved; an invalid file is logged once."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from ops.logs import configure_logging
from ops.settings.live import LiveSettings
from ops.settings.load import LoadedSettings, load_settings
from tests.support import eventually

ONE = '[projects.one]\npath = "."\ncommand = ["true"]\n'
TWO = '[projects.two]\npath = "."\ncommand = ["true"]\n'
RULE = '[[policy]]\nsource = "rest"\njob_type = "shell.cmd"\neffect = "allow"\n'


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoadedSettings:
    """Settings with one project, whose log is in their workspace."""
    monkeypatch.setenv("BRIDGE_HOME", str(tmp_path))
    (tmp_path / "3ox.toml").write_text(ONE)
    found = load_settings(tmp_path, environ={})
    found.workspace.create()
    configure_logging(found, process="test")
    return found


def lines(loaded: LoadedSettings, event: str) -> list[dict[str, object]]:
    """Return what the log says of this event."""
    lines = loaded.workspace.log_file.read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["event"] == event]


def test_projects_and_rules_only(loaded: LoadedSettings) -> None:
    """What a process is built from stays as it was; without a change it is the same object."""
    live, file = LiveSettings(loaded), loaded.workspace.settings_file
    assert live.now() is loaded.settings
    file.write_text(f"queue_max = 7\n{ONE}{TWO}{RULE}")
    eventually(lambda: set(live.now().projects) == {"one", "two"}, 5.0)
    assert [rule.effect for rule in live.now().policy] == ["allow"]
    assert live.now().queue_max == loaded.settings.queue_max
    assert live.now() is live.now()
    file.write_text("")
    eventually(lambda: not live.now().projects and not live.now().policy, 5.0)
    assert len(lines(loaded, "settings.reloaded")) == 2


def test_a_check_after_the_given_time_is_enough(loaded: LoadedSettings) -> None:
    """Jobs that were fetched before the last check use what it found; those fetched later check again."""
    live, file = LiveSettings(loaded), loaded.workspace.settings_file
    before_s = time.monotonic()
    # A file that was just written is checked every time.
    eventually(lambda: live.loaded() is live.loaded(since_s=before_s), 5.0)
    eventually(lambda: live.loaded() and time.time() - file.stat().st_mtime > 0.1, 5.0)
    file.write_text(ONE + TWO)
    assert set(live.loaded(since_s=before_s).settings.projects) == {"one"}
    assert set(live.loaded(since_s=time.monotonic()).settings.projects) == {"one", "two"}


def test_a_change_before_the_first_look_counts(loaded: LoadedSettings) -> None:
    """Also one between the reading of the settings and the making of what looks after them."""
    loaded.workspace.settings_file.write_text(TWO)
    assert set(LiveSettings(loaded).now().projects) == {"two"}


def test_what_cannot_be_read_changes_nothing(loaded: LoadedSettings) -> None:
    """A file that is not valid or missing is logged once; the next valid one applies."""
    live, file = LiveSettings(loaded), loaded.workspace.settings_file
    before = live.now()
    file.write_text(f"{TWO}no_such_setting = 1\n[projects")
    eventually(lambda: live.now() is before and lines(loaded, "settings.not_reloaded"), 5.0)
    file.unlink()
    eventually(lambda: live.now() is before and lines(loaded, "settings.gone"), 5.0)
    file.write_text(TWO)
    eventually(lambda: set(live.now().projects) == {"two"}, 5.0)
    (line,) = lines(loaded, "settings.not_reloaded")
    assert "3ox.toml is not valid TOML" in str(line["reason"])
    assert len(lines(loaded, "settings.gone")) == 1


def test_however_many_ask_it_is_read_once(loaded: LoadedSettings) -> None:
    """All that ask while it is read have what it says."""
    live = LiveSettings(loaded)
    live.now()
    loaded.workspace.settings_file.write_text(f"{ONE}{TWO}")
    eventually(lambda: "two" in live.now().projects, 5.0)
    live, found = LiveSettings(loaded), []
    start = threading.Barrier(8)

    def ask() -> None:
        start.wait(5.0)
        found.append(set(live.now().projects))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10.0)
    assert found == [{"one", "two"}] * 8


def test_a_file_that_is_being_written_does_not_count(loaded: LoadedSettings) -> None:
    """Emptied, then written, as many programs do: no caller sees a bridge without its policy."""
    file = loaded.workspace.settings_file
    file.write_text(f"{ONE}{RULE}")
    live = LiveSettings(load_settings(loaded.workspace.home, environ={}))
    assert live.now().policy
    seen, stopping = [], threading.Event()

    def ask() -> None:
        while not stopping.is_set():
            seen.append(len(live.now().policy))

    thread = threading.Thread(target=ask)
    thread.start()
    for number in range(10):
        with file.open("w") as text:
            known = len(seen) + 2
            eventually(lambda known=known: len(seen) > known)  # type: ignore[misc]
            text.write(f"queue_max = {number + 1}\n{ONE}{RULE}")
    eventually(lambda: live.loaded().settings.queue_max == 10, 5.0)
    stopping.set()
    thread.join(10.0)
    assert set(seen) == {1}


def test_all_that_the_file_holds(loaded: LoadedSettings) -> None:
    """What is built from the settings again and again follows all of them, but never to another store."""
    live = LiveSettings(loaded)
    assert live.loaded() is loaded
    loaded.workspace.settings_file.write_text(f'queue_max = 7\nredis_url = "redis://elsewhere"\n{ONE}')
    fresh = live.loaded()
    assert (fresh.settings.queue_max, fresh.settings.redis_url) == (7, loaded.settings.redis_url)
    assert live.loaded() is fresh


def test_the_same_content_is_not_read_again(loaded: LoadedSettings) -> None:
    """A file that is saved without a change leaves the settings as they are."""
    live = LiveSettings(loaded)
    loaded.workspace.settings_file.write_text(ONE)
    assert live.loaded() is loaded
    assert live.now() is loaded.settings
