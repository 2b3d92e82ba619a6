"""The library of functions: loaded on demand, versions side by side, documented arguments and keys."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from middleware.broker import functions
from middleware.broker.functions import library, load
from middleware.broker.scripts import BATCH_MAX
from middleware.broker.transitions import EnqueueRequest
from middleware.job import keys
from ops.errors import StoreUnreachable
from tests.middleware.driver import Driver


def names(driver: Driver) -> list[str]:
    """Return the bridge's libraries that the store has."""
    rows = driver.store.call("FUNCTION", "LIST", "LIBRARYNAME", "threeox_*")
    return [row[row.index(b"library_name") + 1].decode() for row in rows]


def test_a_store_that_lost_them_gets_them_again(driver: Driver) -> None:
    """A store that was emptied by hand, or failed over to one that never had them, goes on at once."""
    driver.add()
    driver.store.call("FUNCTION", "FLUSH")
    assert len(driver.fetch()) == 1
    assert names(driver) == [library().name]


def test_functions_that_go_in_the_middle_of_a_batch_are_no_fault_of_ours(driver: Driver) -> None:
    """The caller hears that the store is not ready, and the same jobs again are each taken once."""
    requests = [driver.request() for _ in range(3 * BATCH_MAX)]

    def upgraded_meanwhile() -> Iterator[EnqueueRequest]:
        for at, request in enumerate(requests):
            if at == BATCH_MAX + 1:
                driver.store.call("FUNCTION", "DELETE", library().name)
            yield request

    with pytest.raises(StoreUnreachable):
        list(driver.scripts.enqueue(upgraded_meanwhile()))
    assert {reply.outcome for reply in driver.offer(*requests)} == {"new", "duplicate"}
    assert len(driver.fetch(room=4 * BATCH_MAX)) == len(requests)


def test_versions_live_side_by_side_up_to_a_number(driver: Driver) -> None:
    """While a fleet is upgraded the old workers keep theirs; many upgrades later they are gone."""
    driver.store.call("FUNCTION", "FLUSH")
    load(driver.store)
    for number in range(3):
        body = f"redis.register_function('old{number}', function() return 1 end)"
        text = f"#!lua name=threeox_old{number}\n{body}"
        driver.store.call("FUNCTION", "LOAD", "REPLACE", text)
    assert sorted(names(driver)) == sorted([library().name, "threeox_old0", "threeox_old1", "threeox_old2"])
    load(driver.store)
    assert names(driver) == [library().name]


def test_every_file_is_a_function() -> None:
    """A new file beside the others needs no list to be named in."""
    assert {"enqueue", "fetch", "settle", "recover", "cancel"} <= set(library().functions)


FOLDER = Path(functions.__file__).parent


#: Called by functions with an interval of their arguments.
SHARED = FOLDER / "enqueue_batch.lua"


@pytest.mark.parametrize("file", sorted({*FOLDER.glob("*.lua")} - {SHARED}), ids=lambda file: file.stem)
def test_every_file_opens_with_its_arguments_and_its_reply(file: Path) -> None:
    """Its first comment lists KEYS, ARGV and the reply; no argument that is used is missing."""
    text = file.read_text(encoding="utf-8")
    head, _, body = text.partition("\n\n")
    assert all(line.startswith("--") for line in head.splitlines())
    assert "-- KEYS[1]  key prefix" in head
    assert re.search(r"^-- Reply ", head, re.MULTILINE)
    listed = {int(number) for number in re.findall(r"ARGV\[(\d+)\]", head)}
    used = {int(number) for number in re.findall(r"ARGV\[(\d+)\]", body)}
    assert listed == set(range(1, max(listed) + 1))
    assert used <= listed


def test_the_key_schema_names_every_key() -> None:
    """Those that functions build, and those that Python does; at the top of ``prelude.lua``."""
    schema = (FOLDER / "prelude.lua").read_text(encoding="utf-8").partition("\n\n")[0]
    listed = {
        line.split()[1].split(":")[0] for line in schema.splitlines() if re.match(r"--   [a-z]\S+ ", line)
    }
    built = {
        name.split(":")[0]
        for file in FOLDER.glob("*.lua")
        for name in re.findall(r"P \.\. '([a-z][a-z:]*)'", file.read_text(encoding="utf-8"))
    }
    python = set(re.findall(r'f"\{(?:self\.)?prefix\}([a-z]+)', inspect.getsource(keys)))
    channels = {"caller", "command", "control", "event"}
    assert (built | python) - channels - listed == set()
