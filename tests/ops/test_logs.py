"""The log: whole JSON lines from many processes, rotated, without secrets."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ops.errors import SettingsError
from ops.logfile import LINE_MAX_BYTES, LogFile
from ops.logs import JournalLine, configure_logging, get_logger, journal
from ops.settings.load import load_settings
from tests.support import clean_environ


@pytest.fixture(autouse=True)
def untouched_root() -> Iterator[None]:
    """Return the root logger back as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in set(root.handlers) - set(handlers):
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)


def lines(home: Path) -> list[dict[str, Any]]:
    """Read the log of a workspace."""
    return [json.loads(line) for line in (home / "3ox.log").read_text().splitlines()]


def configure(home: Path, **environ: str) -> None:
    """Set logging up for a workspace."""
    configure_logging(load_settings(home, environ=environ), process="test", console=False)


def test_own_and_foreign_records(tmp_path: Path) -> None:
    """Records of ours and of the standard library arrive with the same fields."""
    configure(tmp_path)
    get_logger("our.module").info("job.completed", job_id="abc", took_s=1.5)
    logging.getLogger("dramatiq.worker").warning("stock %s", "text")
    get_logger("our.module").debug("too.fine")
    logging.getLogger("plain").info("job.recovered", extra={"job_id": "def"})
    own, foreign, extra = lines(tmp_path)
    assert (extra["event"], extra["job_id"]) == ("job.recovered", "def")
    assert set(extra) == {"at", "level", "event", "job_id", "logger", "process", "pid"}
    assert own["at"].endswith("Z")
    assert {key: own[key] for key in ("level", "event", "job_id", "took_s", "logger", "process")} == {
        "level": "info",
        "event": "job.completed",
        "job_id": "abc",
        "took_s": 1.5,
        "logger": "our.module",
        "process": "test",
    }
    assert (foreign["event"], foreign["message"], foreign["level"]) == ("message", "stock text", "warning")
    assert isinstance(foreign["pid"], int)


def test_traceback_and_odd_values(tmp_path: Path) -> None:
    """A traceback, a path, not-a-number and half of a surrogate pair make lines that parse."""
    configure(tmp_path)
    log = get_logger("t")
    try:
        int("inside")
    except ValueError:
        log.exception("it.failed")
    log.info("odd", path=tmp_path, number=float("nan"), text="a\udc80\nb")
    log.info("long", text="x" * 10 * LINE_MAX_BYTES)
    failed, odd, long = lines(tmp_path)
    assert "ValueError: invalid literal" in failed["exception"]
    assert odd["path"] == str(tmp_path)
    assert odd["text"] == "a\\udc80\nb"
    assert len(json.dumps(long)) < LINE_MAX_BYTES


def test_lines_of_jobs_are_written_together(tmp_path: Path) -> None:
    """Each is a line like any other, with its secrets masked; those below the level are left out."""
    configure_logging(load_settings(tmp_path, environ={"BRIDGE_API_TOKEN": "sesame-77"}), process="test")
    journal(
        [
            JournalLine(logging.INFO, "job.completed", {"job_id": "one", "attempt": 1}),
            JournalLine(logging.DEBUG, "job.queued", {"job_id": "two"}),
            JournalLine(logging.WARNING, "job.superseded", {"job_id": "three", "reason": "of sesame-77"}),
        ]
    )
    first, last = lines(tmp_path)
    assert (first["event"], first["level"], first["job_id"], first["attempt"]) == (
        "job.completed",
        "info",
        "one",
        1,
    )
    assert (first["logger"], first["process"]) == ("journal", "test")
    assert (last["event"], last["level"], last["job_id"]) == ("job.superseded", "warning", "three")
    assert "sesame" not in last["reason"]


def test_secrets_stay_out(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known secrets and fields that sound like one are blacked out, in the file and on the terminal."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-verysecret")
    monkeypatch.setenv("HTTPS_PROXY", "me:hunter2%21@proxy:3128")
    monkeypatch.setenv("GROQ_API_KEY", "of-groq-77")
    environ = {"BRIDGE_API_TOKEN": 'tok"en99', "BRIDGE_REDIS_URL": "redis://u:pass%2Fword@h"}
    configure_logging(load_settings(tmp_path, environ=environ), process="test", console=True)
    text = 'uses tok"en99 and pass/word and sk-verysecret, hunter2!, of-groq-77'
    get_logger("t").info("leak", text=text, telegram_token="12:ab", password="short")
    stderr = capfd.readouterr().err
    for place in ((tmp_path / "3ox.log").read_text(), stderr):
        assert "leak" in place
        for secret in (
            'tok"en99',
            'tok\\"en99',
            "pass/word",
            "sk-verysecret",
            "12:ab",
            "short",
            "hunter2",
            "groq-77",
        ):
            assert secret not in place


def test_secrets_of_variables_that_the_settings_name_stay_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The values of all variables that settings name for secrets are masked."""
    secrets = {name: f"secret-of-{name.lower()}" for name in ("CLAUDE", "HOOK", "ENDPOINT", "PLACE")}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "3ox.toml").write_text(
        """
        redis_url = "unix:///run/store.sock?password=in-the-query"
        [ask.anthropic]
        api_key_env = "CLAUDE"
        [[webhook]]
        name = "w"
        url = "https://me:in-the-address@example.org/"
        secret_env = "HOOK"
        [rest.endpoints.e]
        job = "ask"
        secret_env = "ENDPOINT"
        [[notify]]
        urls = ["env:PLACE"]
        """
    )
    configure(tmp_path)
    get_logger("t").info("leak", text=" ".join([*secrets.values(), "in-the-query", "in-the-address"]))
    (line,) = lines(tmp_path)
    assert line["text"] == " ".join(["********"] * 6)


def test_nothing_on_stdout(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither before nor after the set-up does a record reach stdout."""
    get_logger("t").warning("before")
    configure_logging(load_settings(tmp_path, environ={}), process="test", console=True)
    get_logger("t").warning("after")
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "after" in captured.err


def test_configured_twice(tmp_path: Path) -> None:
    """Setting it up again does not double the lines."""
    configure(tmp_path)
    configure(tmp_path)
    get_logger("t").info("once")
    assert len(lines(tmp_path)) == 1


def test_light_until_used() -> None:
    """AskOptions for a logger imports neither structlog nor anything else that is slow."""
    code = "import sys; from ops.logs import get_logger; get_logger('x'); print('structlog' in sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", code], env=clean_environ(), capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "False"


WRITER = """
import sys
from pathlib import Path
from ops.logs import configure_logging, get_logger
from ops.settings.load import load_settings
environ = {"BRIDGE_LOG_MAX_BYTES": "40000", "BRIDGE_LOG_KEEP": "1000"}
loaded = load_settings(Path(sys.argv[1]), environ=environ)
configure_logging(loaded, process=sys.argv[2], console=False)
log = get_logger("writer")
for number in range(1000):
    log.info("line", number=number, filler="f" * (number % 300))
"""


def test_many_processes_and_rotation(tmp_path: Path) -> None:
    """Four processes write through dozens of rotations: every line is there once, whole."""
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), f"w{number}"], env=clean_environ())
        for number in range(4)
    ]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    files = list(tmp_path.glob("3ox.log*"))
    assert len(files) > 6
    seen: dict[str, list[int]] = {}
    for file in files:
        assert file.stat().st_size < 60_000
        for line in file.read_text().splitlines():
            entry = json.loads(line)
            seen.setdefault(entry["process"], []).append(entry["number"])
    assert {process: sorted(numbers) for process, numbers in seen.items()} == {
        f"w{number}": list(range(1000)) for number in range(4)
    }


FULL = """
import resource
import sys
from pathlib import Path
from ops.logfile import LogFile
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
file = LogFile(Path(sys.argv[1]), max_bytes=10_000, keep=1)
file.write(b"a" * 70)
try:
    file.write(b"b" * 70)
except OSError:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    file.write(b"c" * 70)
"""


def test_a_full_disk_tears_no_line(tmp_path: Path) -> None:
    """A line for which there was no room leaves nothing that the next one would be glued to."""
    log = tmp_path / "log"
    subprocess.run([sys.executable, "-c", FULL, str(log)], env=clean_environ(), check=True, timeout=30)
    assert log.read_text().splitlines() == ["a" * 70, "c" * 70]


def test_lines_go_on_where_no_new_file_can_be_made(tmp_path: Path) -> None:
    """The log is moved away and another kind of file has its name: lines go to the moved file."""
    log = tmp_path / "log"
    file = LogFile(log, max_bytes=10_000, keep=1, check_every_s=0.0)
    file.write(b"before")
    log.rename(tmp_path / "moved")
    log.mkdir()
    file.write(b"after")
    assert (tmp_path / "moved").read_text() == "before\nafter\n"
    log.rmdir()
    file.write(b"back")
    file.close()
    assert log.read_text() == "back\n"


def test_old_files_go(tmp_path: Path) -> None:
    """No more rotated files stay than asked for; with none asked for, none stays."""
    for keep in (2, 0):
        folder = tmp_path / str(keep)
        folder.mkdir()
        file = LogFile(folder / "log", max_bytes=100, keep=keep)
        for number in range(50):
            file.write(f"{number} {'x' * 30}".encode())
        file.close()
        rotated = sorted(path.name for path in folder.iterdir() if path.name != "log")
        assert rotated == [f"log.{number}" for number in range(1, keep + 1)]


def test_follows_a_replaced_file(tmp_path: Path) -> None:
    """When the file has been moved away, the next line goes to a new file of the old name."""
    file = LogFile(tmp_path / "log", max_bytes=10_000, keep=1, check_every_s=0)
    file.write(b"one")
    (tmp_path / "log").rename(tmp_path / "away")
    file.write(b"two")
    file.close()
    assert (tmp_path / "log").read_bytes() == b"two\n"


def test_unwritable(tmp_path: Path) -> None:
    """A log that cannot be written is an error with a remedy."""
    (tmp_path / "3ox.log").mkdir()
    with pytest.raises(SettingsError, match="cannot be written"):
        configure(tmp_path)
