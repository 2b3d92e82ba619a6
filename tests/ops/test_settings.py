"""Settings: where they come from, and that every mistake is named with its remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.errors import SettingsError
from ops.settings.load import LoadedSettings, load_settings
from ops.settings.rows import rows_of
from ops.store.client import Store
from ops.store.url import mask_password, parse_endpoint, passwords_in
from ops.workspace import default_home


def load(
    home: Path,
    toml: str = "",
    environ: dict[str, str] | None = None,
    overrides: dict[str, object] | None = None,
) -> LoadedSettings:
    """Load what these three sources say."""
    (home / "3ox.toml").write_text(toml)
    return load_settings(home, environ={} if environ is None else environ, overrides=overrides)


def test_order_of_sources(tmp_path: Path) -> None:
    """The file beats the default, the environment the file, an option the environment."""
    toml = "workers = 3\nthreads = 4\nlease_s = 20"
    loaded = load(
        tmp_path, toml, {"BRIDGE_THREADS": "5", "BRIDGE_LEASE_S": "21"}, {"lease_s": 22, "api_port": None}
    )
    found = {name: (getattr(loaded.settings, name), loaded.sources[name]) for name in loaded.sources}
    assert found["workers"] == (3, "3ox.toml")
    assert found["threads"] == (5, "BRIDGE_THREADS")
    assert found["lease_s"] == (22.0, "--lease-s")
    assert found["api_port"] == (7777, "default")


def test_every_setting_is_explained(tmp_path: Path) -> None:
    """Each row has a help text of one sentence."""
    rows = rows_of(load(tmp_path))
    assert len(rows) > 35
    assert [row.name for row in rows if not row.help.strip()] == []
    assert [row.name for row in rows if "\n" in row.help] == []


def test_secrets_are_masked(tmp_path: Path) -> None:
    """Neither a token nor the password in a URL is shown."""
    environ = {"BRIDGE_API_TOKEN": "verysecret", "BRIDGE_REDIS_URL": "redis://me:hunter2@host/0"}
    shown = repr(rows_of(load(tmp_path, environ=environ)))
    assert "verysecret" not in shown
    assert "hunter2" not in shown
    assert "redis://me:***@host/0" in shown


def test_a_login_in_an_address_is_masked(tmp_path: Path) -> None:
    """The address of a webhook is shown, the password in it is not; nor are words that only look like one."""
    toml = '[[webhook]]\nname = "w"\nurl = "https://me:hunter2@host:8443/a:b@c"\n'
    shown = repr(rows_of(load(tmp_path, toml + '[projects.p]\npath = "/a:b@c"\ncommand = ["a:b@c"]')))
    assert "hunter2" not in shown
    assert "https://me:***@host:8443/a:b@c" in shown
    assert shown.count("'a:b@c'") >= 1


def test_lists_from_the_environment(tmp_path: Path) -> None:
    """Commas and blanks separate the items of a list."""
    settings = load(tmp_path, environ={"BRIDGE_TELEGRAM_ALLOW": "12, -34 56"}).settings
    assert settings.telegram_allow == [12, -34, 56]


@pytest.mark.parametrize(
    ("toml", "environ", "complaint"),
    [
        ("wokers = 3", {}, r"Unknown setting 'wokers' in .*3ox.toml \(line 1\). Did you mean 'workers'?"),
        ("", {"BRIDGE_WORKRS": "3"}, "Unknown setting 'BRIDGE_WORKRS' .*Did you mean 'BRIDGE_WORKERS'"),
        ("workers = '3'", {}, r"workers in .*3ox.toml \(line 1\) is not valid: Expected `int`"),
        ("workers = -1", {}, r"workers in .*3ox.toml \(line 1\) is not valid: Expected `int` >= 0"),
        ("", {"BRIDGE_WORKERS": "many"}, "BRIDGE_WORKERS is not valid"),
        (
            "store_fsync = 'often'",
            {},
            "store_fsync in .* is 'often'. Use one of: always, everysec, no",
        ),
        ("x = [", {}, "3ox.toml is not valid TOML"),
        ("lease_s = 1", {}, r"heartbeat_s \(5, default\) is greater than lease_s \(1, 3ox.toml\)"),
        ("[projects.x]\ncommand = ['a']", {}, r"\[projects.x\] in .* lacks the required key 'path'"),
        ("[projects.x]\npath = 'p'\ncommand = []", {}, "projects.x.command in .* is not valid"),
        (
            "[projects.x]\npath = 'p'\ncommand = ['a']\ntimout_s = 3",
            {},
            r"Unknown key 'timout_s' in \[projects.x\] of .*Did you mean 'timeout_s'",
        ),
        (
            "[projects.'a b']\npath = 'p'\ncommand = ['a']",
            {},
            r"A name in \[projects\] of .* has the wrong form: 'a b'",
        ),
        ("[ask.opnai]\nmodel = 'm'", {}, r"Unknown key 'opnai' in \[ask\] .*Did you mean 'openai'"),
        ("ask = 3", {}, r"ask in .* must be a table. Write it as \[ask\]"),
        ("[resources]\ngpu = 0", {}, "resources.gpu in .* is not valid"),
        (
            "\n[[webhook]]\nname = 'a'\nurl = 'http://a'\n[[webhook]]\nname = 1\nurl = 'http://a'",
            {},
            r"webhook 2\.name in .* \(line 6\) is not valid",
        ),
        ('[types."shell.cmd"]\n\ntimeout_s = 0', {}, r"types\.shell\.cmd\.timeout_s in .* \(line 3\)"),
        ("[ask]\n[ask.openai]\nretires = 3", {}, r"Unknown key 'retires' in \[ask.openai\] of .* \(line 3\)"),
        ("", {"BRIDGE_REDIS_URL": "http://x"}, "BRIDGE_REDIS_URL has the wrong form.*redis://"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, toml: str, environ: dict[str, str], complaint: str) -> None:
    """Each mistake is one line that names the place, and ends the command with 2."""
    with pytest.raises(SettingsError, match=complaint) as caught:
        load(tmp_path, toml, environ)
    assert caught.value.exit_code == 2
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


def test_secret_is_not_in_the_complaint(tmp_path: Path) -> None:
    """A URL of the wrong form may hold a password, so it is not repeated."""
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, environ={"BRIDGE_REDIS_URL": "rdis://:hunter2@x"})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://[::1:6379",
        "redis://:hunter/2@host",
        "rediss://:hunter/2@host",
        "sentinel://:hunter/2",
    ],
)
def test_a_malformed_url_is_not_quoted(url: str) -> None:
    """A URL that cannot be read is an error of one line, which repeats no piece of a password in it."""
    with pytest.raises(SettingsError) as caught:
        Store(url)
    assert caught.value.remedy
    assert "hunter" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown", "passwords"),
    [
        ("redis://u:a@b:c@h/0", "redis://u:***@h/0", ["a@b:c"]),
        ("unix:///s.sock?db=1&password=a%2Fb", "unix:///s.sock?db=1&password=***", ["a%2Fb"]),
        ("rediss://h/0?password=a&db=1", "rediss://h/0?password=***&db=1", ["a"]),
        ("redis://user@h", "redis://user@h", []),
        ("unix:///tmp/s.sock", "unix:///tmp/s.sock", []),
    ],
)
def test_passwords_are_found_wherever_they_stand(url: str, shown: str, passwords: list[str]) -> None:
    """Both forms that the client knows: before the host, and as an option."""
    assert mask_password(url) == shown
    assert passwords_in(url) == passwords


def test_tables_are_no_variables(tmp_path: Path) -> None:
    """What is a table in 3ox.toml cannot be set by a variable, and is not offered as one."""
    for name in ("REST", "STATION", "SCHEDULE"):
        with pytest.raises(SettingsError, match=f"Unknown setting 'BRIDGE_{name}'"):
            load(tmp_path, environ={f"BRIDGE_{name}": "1"})


def test_unknown_option(tmp_path: Path) -> None:
    """An override of an unknown setting is refused like any other unknown key."""
    with pytest.raises(SettingsError, match="Did you mean 'workers'"):
        load(tmp_path, overrides={"worker": 3})


def test_process_marks_are_no_settings(tmp_path: Path) -> None:
    """What the bridge itself puts into the environment of its processes and jobs is accepted there."""
    marks = ("HOME", "SUPERVISED", "UNIT", "WORKER_ID", "JOB_ID", "PROJECT", "TASK")
    marked = load(tmp_path, environ={f"BRIDGE_{mark}": "x" for mark in marks})
    assert marked.settings == load(tmp_path).settings


def test_project_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project's path is absolute, counted from the workspace, with ~ expanded."""
    monkeypatch.setenv("HOME", "/somewhere")
    toml = "".join(
        f"[projects.{n}]\npath = '{p}'\ncommand = ['a']\n" for n, p in (("a", "x"), ("b", "~/y"), ("c", "/z"))
    )
    projects = load(tmp_path, toml).settings.projects
    assert {name: project.path for name, project in projects.items()} == {
        "a": str(tmp_path / "x"),
        "b": "/somewhere/y",
        "c": "/z",
    }


def test_the_file_as_editors_write_it(tmp_path: Path) -> None:
    """With a byte order mark, and lines that end with CR LF; other encodings are named with their line."""
    (tmp_path / "3ox.toml").write_bytes(b"\xef\xbb\xbfworkers = 3\r\n[rest]\r\nburst = 7\r\n")
    assert load_settings(tmp_path, environ={}).settings.workers == 3
    (tmp_path / "3ox.toml").write_bytes("workers = 3\n# Grüße".encode("latin-1"))
    with pytest.raises(SettingsError, match=r"3ox.toml \(line 2\) is not UTF-8"):
        load_settings(tmp_path, environ={})


def test_variables_as_shells_and_unit_files_set_them(tmp_path: Path) -> None:
    """White space, carriage returns and byte order marks are removed; an empty variable counts as unset."""
    environ = {
        "BRIDGE_API_TOKEN": "token-of-20-letters\r",
        "BRIDGE_WORKERS": "",
        "BRIDGE_THREADS": " \r\n",
        "BRIDGE_API_PORT": " 7811 ",
        "BRIDGE_API_HOST": "\ufeff10.0.0.1\r\n",
        "BRIDGE_TELEGRAM_ALLOW": "1, 2\r",
    }
    loaded = load(tmp_path, "threads = 3\n", environ)
    settings = loaded.settings
    assert (settings.api_token, settings.api_port, settings.api_host) == (
        "token-of-20-letters",
        7811,
        "10.0.0.1",
    )
    assert (settings.workers, settings.threads, settings.telegram_allow) == (2, 3, [1, 2])
    assert (loaded.sources["workers"], loaded.sources["threads"]) == ("default", "3ox.toml")


def test_without_a_home_directory() -> None:
    """The error names BRIDGE_HOME; a folder named ~ is not created. A user of that name has none either."""
    assert default_home({"HOME": "/h", "BRIDGE_HOME": " ~/b\r"}) == Path("/h/b")
    with pytest.raises(
        SettingsError, match="BRIDGE_HOME: the home directory in '~no-such-user/b' is unknown"
    ):
        default_home({"BRIDGE_HOME": "~no-such-user/b"})


def test_home() -> None:
    """BRIDGE_HOME names the workspace, an empty one does not, and the path is absolute."""
    assert default_home({"BRIDGE_HOME": "/a/b"}) == Path("/a/b")
    assert default_home({"BRIDGE_HOME": ""}) == Path("~/cmd.bridge").expanduser()
    assert default_home({"BRIDGE_HOME": "rel"}) == Path.cwd() / "rel"


def test_store_url_is_quoted(tmp_path: Path) -> None:
    """A workspace with odd letters in its path gives a URL that reads back as the same path."""
    loaded = load_settings(tmp_path / "a%41 ?#b", environ={})
    assert parse_endpoint(loaded.store_url).path == str(loaded.workspace.store_socket)
