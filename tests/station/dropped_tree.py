"""A tree with everything that people drop, and the account of what became of each entry."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from ingress.core.drop_folder import utf8_name
from ingress.dispatch import Bridge
from middleware.job.records import JobRecord

Fate = Literal["ingested", "failed", "left", "note"]

#: Names that some program or other gets wrong; each is used in many folders.
ODD_NAMES = (
    "a\\b.txt",
    "-rf",
    " spaces ",
    "two\nlines.txt",
    "😀.txt",
    "x" * 251 + ".txt",
    "a..b",
    "NUL",
    "~tilde",
    "%41%2F",
    "$(id)`id`.txt",
    "#hash",
    "Å-nfd-Å",
    os.fsdecode(b"caf\xe9.txt"),
)
LEFT_NAMES = (".env", "report.pdf.filepart", "x.aria2", "y.!qB", "k.PART", "#emacs#", "4913", "Thumbs.db")
#: Their targets do not exist, so that an error of a test or of the bridge cannot harm the machine.
LINKS_OUT = ("/nonexistent/x", "../../../../../../../../../../nonexistent/x", "sub/../../x")


class Entry(NamedTuple):
    """One entry of the tree.

    Attributes:
        path: Path in the tree; may hold bytes that are not UTF-8, as ``os.fsdecode`` returns them.
        what: Kind of entry, for the account.
        fate: What must become of it.
        content: Content of a file, target of a link.
    """

    path: str
    what: str
    fate: Fate
    content: str = ""


class Account(NamedTuple):
    """What became of the entries.

    Attributes:
        counts: (kind, fate) -> number of entries that were accounted for.
        problems: One sentence for each entry that was not, and for everything that is too much.
    """

    counts: Counter[tuple[str, str]]
    problems: list[str]


def build_tree(root: Path, *, files: int, folders: int) -> list[Entry]:
    """Build the tree; the same one for the same numbers.

    Args:
        root: A folder that does not exist.
        files: Number of entries that are not folders, about.
        folders: Number of folders.
    """
    chance = random.Random(files)  # noqa: S311 (a reproducible tree)
    places = _folders(chance, folders)
    for place in places:
        (root / place).mkdir(parents=True, exist_ok=True)
    entries = list(_empty_folders(root, places, folders // 20))
    per_folder = files // len(places)
    for number, place in enumerate(places):
        entries += _fill(root, place, number, per_folder, chance)
    return entries


def _folders(chance: random.Random, count: int) -> list[str]:
    places = ["", "deep/" + "/".join(["d"] * 40)]
    while len(places) < count:
        parent = chance.choice(places[:1] + places[2:]) if chance.random() < 0.7 else ""
        name = chance.choice(("folder", "über", "a b", "-x", "q\\r", "new\nline"))
        places.append(f"{parent}/{name} {len(places)}".lstrip("/"))
    return places


def _empty_folders(root: Path, places: list[str], count: int) -> Iterator[Entry]:
    for number in range(count):
        path = f"{places[number]}/empty {number}".lstrip("/")
        (root / path).mkdir()
        os.utime(root / path, (1, 1))
        yield Entry(path, "empty folder", "ingested")


def _fill(root: Path, place: str, number: int, count: int, chance: random.Random) -> Iterator[Entry]:
    """Fill one folder."""
    prefix = f"{place}/" if place else ""

    def write(name: str, content: str, what: str, fate: Fate = "ingested") -> Entry:
        (root / prefix / name).write_text(content)
        return Entry(prefix + name, what, fate, content)

    def link(name: str, target: str, what: str, fate: Fate = "ingested") -> Entry:
        (root / prefix / name).symlink_to(target)
        return Entry(prefix + name, what, fate, target)

    yield write("__init__.py", "", "empty file")
    yield write("same.txt", "the same everywhere", "duplicate")
    yield write(LEFT_NAMES[number % len(LEFT_NAMES)], "x", "temporary or dot file", "left")
    yield write("noted.txt", f"noted {number}", "file with a note")
    yield write("noted.txt.note.txt", f"about {number}", "note", "note")
    yield link("inside", "same.txt", "link inside the tree")
    yield link("up", ".." if place else "missing", "link inside the tree")
    if number % 5 == 0:
        yield link("outside", LINKS_OUT[number // 5 % len(LINKS_OUT)], "link out of the tree", "failed")
        (root / prefix / "hard").hardlink_to(root / prefix / "same.txt")
        yield Entry(f"{prefix}hard", "hard link", "ingested", "the same everywhere")
    if number % 25 == 0:
        os.mkfifo(root / prefix / "pipe")
        yield Entry(f"{prefix}pipe", "pipe", "failed")
    yield write(ODD_NAMES[number % len(ODD_NAMES)], f"odd {number}", "odd name")
    for at in range(count - 8):
        content = f"file {number}/{at}" if chance.random() < 0.8 else "one of a few"
        yield write(f"file {at}.txt", content, "file" if content[0] == "f" else "duplicate")


def all_jobs(bridge: Bridge) -> list[JobRecord]:
    """Return all ``ingest.file`` jobs."""
    jobs: list[JobRecord] = []
    cursor: str | None = None
    while True:
        page = bridge.reader.page(job_type="ingest.file", limit=1000, cursor=cursor)
        jobs += page.jobs
        cursor = page.next
        if cursor is None:
            return jobs


def account_for(bridge: Bridge, tree: str, entries: list[Entry]) -> Account:
    """Compare every entry of a dropped tree with the jobs, WORKDESK, ``failed/`` and the drop folder.

    Args:
        bridge: The bridge.
        tree: Name of the tree in the drop folder.
        entries: Its entries.
    """
    workspace = bridge.loaded.workspace
    jobs: dict[str, list[JobRecord]] = {}
    for job in all_jobs(bridge):
        jobs.setdefault(f"{job.payload.get('folder', '')}/{job.payload['name']}", []).append(job)
    refused = workspace.inbox / "failed"
    failed = {"/".join(path.relative_to(refused).parts[1:]) for path in _below(refused)}
    counts: Counter[tuple[str, str]] = Counter()
    problems = []
    for entry in entries:
        path = f"{tree}/{utf8_name(entry.path)}"
        own = jobs.pop(path, [])
        problem = _problem(entry, own, workspace.workdesk / path)
        if entry.fate == "failed" and path not in failed:
            problem = "is not in failed/"
        if entry.fate == "left" and not os.path.lexists(workspace.inbox / tree / entry.path):
            problem = "is not left in the drop folder"
        if problem:
            problems.append(f"{entry.what} {path!r} {problem}")
        else:
            counts[entry.what, entry.fate] += 1
    problems += [f"job of an unknown entry {path!r}" for path in jobs]
    expected = {entry.path for entry in entries if entry.fate == "left"}
    for place in _below(workspace.inbox / tree):
        if str(place.relative_to(workspace.inbox / tree)) not in expected:
            problems.append(f"{place} is left in the drop folder")
    claims = workspace.inbox / ".claimed"
    problems += [f"claim {path.name} is left" for path in (claims.iterdir() if claims.exists() else ())]
    return Account(counts, problems)


def _problem(entry: Entry, jobs: list[JobRecord], place: Path) -> str:
    """Return what is wrong with an entry; empty if nothing is."""
    if entry.fate != "ingested":
        return f"has {len(jobs)} jobs" if jobs else ""
    if [job.status for job in jobs] != ["completed"]:
        return f"has jobs {[(job.status, job.reason) for job in jobs]}"
    if entry.what == "empty folder":
        return "" if place.is_dir() else f"is not at {place}"
    if entry.what.startswith("link"):
        found = os.readlink(place) if place.is_symlink() else None  # noqa: PTH115 (the text as it is)
    else:
        found = place.read_text() if place.is_file() else None
    if found != entry.content:
        return f"is {found!r} at {place}"
    if entry.what == "file with a note":
        number = entry.content.split()[1]
        return "" if jobs[0].payload.get("note") == f"about {number}" else "lost its note"
    return ""


def _below(root: Path) -> Iterator[Path]:
    """Yield everything below a folder that is not a folder; links are not followed."""
    for folder, folders, names in os.walk(root):
        for name in (*names, *folders):
            path = Path(folder, name)
            if name in names or path.is_symlink():
                yield path
