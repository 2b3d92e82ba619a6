"""The tables that say which tests are slow, need a browser or namespaces, and share a process."""

from __future__ import annotations

import pytest

from tests.selection import BROWSER, NETNS, SLOW, TOGETHER, marks_of, portion_of, seconds_of
from tests.support import ROOT


@pytest.mark.parametrize("place", [*SLOW, *BROWSER, *NETNS, *TOGETHER])
def test_every_place_exists(place: str) -> None:
    """A file that was moved keeps its marks."""
    assert (ROOT / place).exists()


def test_a_portion_is_a_folder_or_a_file() -> None:
    """What shares a bridge stays together; the portion takes what its files take."""
    assert portion_of("tests/rest/test_jobs.py") == "tests/rest"
    assert portion_of("tests/cli/test_jobs.py") == "tests/cli/test_jobs.py"
    assert seconds_of("tests/rest") > SLOW["tests/rest/test_outage.py"]
    assert seconds_of("tests/ops/test_tokens.py") == 0


def test_marks_follow_from_the_file() -> None:
    """A file may have several."""
    assert marks_of("tests/deploy/test_netns.py") == ["slow", "netns"]
    assert marks_of("tests/ops/test_tokens.py") == []
