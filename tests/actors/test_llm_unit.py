"""A bridge with a model server: the worker unit that asks it, from the command line, REST and a chat.

Everything goes through a proxy, as in networks that require one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from ingress.demo.bot_api import BotApi
from ingress.dispatch import Bridge
from middleware.job.keys import LLM_QUEUE, QUEUE
from middleware.job.schema import make_job
from ops.settings.load import load_settings
from tests.cli.support import Cli
from tests.odd_models import COMPLETED, FAILED, REFUSED, REQUESTS, OddModels
from tests.proxy import Proxy
from tests.rest.client import Client
from tests.support import clean_environ, eventually

CHAT = 42
TOKEN = "token-of-more-than-20-letters"
SETTINGS = f"""
telegram_allow = [{CHAT}]
telegram_edit_interval_s = 0.05

[ask.openai]
model = "mistral"

[types.ask]
max_retries = 0

[types.telegram]
max_retries = 0

[station]
settle_s = 0.1
"""
#: One of each kind; tests/actors/test_odd_models.py has all of them.
ASKED = ("ok", "stream_options", "json_text", "done_noend", "cut", "filter", "html")


class Scene(NamedTuple):
    """A running bridge, what it talks to, and the ids of its workers by unit."""

    cli: Cli
    bridge: Bridge
    api: Client
    models: OddModels
    proxy: Proxy
    chat: BotApi
    workers: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The bridge, started as a user starts it."""
    home = tmp_path_factory.mktemp("llm")
    (home / "3ox.toml").write_text(SETTINGS)
    with OddModels() as models, Proxy() as proxy, BotApi() as chat:
        cli = Cli(
            clean_environ(
                {
                    "BRIDGE_HOME": str(home),
                    "BRIDGE_API_TOKEN": TOKEN,
                    "BRIDGE_TELEGRAM_TOKEN": chat.token,
                    "BRIDGE_TELEGRAM_API": chat.url,
                    "OPENAI_BASE_URL": models.base_url.replace("127.0.0.1", "models.localhost"),
                    "HTTP_PROXY": f"http://{proxy.place}",
                    "NO_PROXY": "127.0.0.1",
                }
            )
        )
        started = cli("up", "--detach", "--workers", "1", "--threads", "4")
        assert started.code == 0, started.err
        status = cli("status", "--json").json
        units = {worker["unit"]: worker for worker in status["workers"]}
        bridge = Bridge(load_settings(environ=cli.environ))
        yield Scene(cli, bridge, Client(_api_url(started.out), TOKEN), models, proxy, chat, units)
        assert cli("down").code == 0
        cli.end()


def _api_url(output: str) -> str:
    words = [word for word in output.split() if word.startswith("http://127.0.0.1:")]
    return words[0].partition("?")[0].rstrip("/")


def right(model: str, status: str, text: str, reason: str) -> None:
    """Check the end of a job against the table of right results."""
    if model in COMPLETED:
        assert (status, text) == ("completed", COMPLETED[model][0]), (model, reason)
    else:
        assert status == "failed"
        assert {**FAILED, **REFUSED}[model] in reason


def test_the_unit_alone_has_the_library(scene: Scene) -> None:
    """The other worker stays small: it neither consumes the queue nor imports the library."""
    assert scene.workers.keys() == {"worker-1", "llm"}
    assert scene.workers["llm"]["queues"] == [LLM_QUEUE]
    assert scene.workers["llm"]["types"] == ["ask", "ingest.file", "telegram"]
    assert LLM_QUEUE not in scene.workers["worker-1"]["queues"]
    assert scene.cli("ask", "--model", "ok", "hi").out.rstrip("\n") == "Hello world"
    library = "pydantic_core"
    assert library in Path(f"/proc/{scene.workers['llm']['pid']}/maps").read_text()
    assert library not in Path(f"/proc/{scene.workers['worker-1']['pid']}/maps").read_text()


def test_the_command_line_gets_the_right_results(scene: Scene) -> None:
    """Streamed text and exit status; each question is asked once, through the proxy."""
    for model in ASKED:
        scene.models.requests.clear()
        scene.proxy.taken.clear()
        done = scene.cli("ask", "--model", model, "--session", f"s-{model}", "hi")
        right(model, "completed" if done.code == 0 else "failed", done.out.rstrip("\n"), done.err)
        assert len(scene.models.requests) == REQUESTS.get(model, 1)
        assert len(scene.proxy.taken) == len(scene.models.requests)
        assert {taken.target.partition(":")[0] for taken in scene.proxy.taken} == {"models.localhost"}
    kept = {row["session_id"] for row in scene.cli("sessions", "--json").json["sessions"]}
    assert kept == {f"s-{model}" for model in ASKED if model in COMPLETED}


def test_rest_gets_the_right_results(scene: Scene) -> None:
    """Jobs that run side by side end as the table says, on the unit."""
    scene.models.requests.clear()
    ids = {}
    for model in ASKED:
        body = {"job_type": "ask", "payload": {"prompt": "hi", "model": model}}
        accepted = scene.api("POST", "/v1/jobs", body)
        assert accepted.status == 202, accepted.body
        ids[model] = accepted.json["job_id"]
    for model, job_id in ids.items():
        job = scene.bridge.follower.wait(job_id, timeout_s=30.0)
        text = "" if job.result is None else job.result["text"]
        right(model, job.status, text, job.reason)
        assert job.worker_id == scene.workers["llm"]["worker_id"]
    assert len(scene.models.requests) == sum(REQUESTS.get(model, 1) for model in ASKED)


def test_a_chat_gets_the_answer(scene: Scene) -> None:
    """A text is answered by the configured model; the content in parts becomes one text."""
    scene.chat.say(CHAT, "hello there")
    scene.chat.wait(lambda: "Hello" in scene.chat.texts(CHAT))


def test_a_file_that_a_model_decides_about_is_taken_by_the_unit(scene: Scene) -> None:
    """One that a rule decides about would be no matter of the unit."""
    (scene.bridge.loaded.workspace.inbox / "letter.txt").write_text("Dear all")
    page = eventually(lambda: scene.bridge.reader.page(job_type="ingest.file", limit=5).jobs, 20.0)
    job = scene.bridge.follower.wait(page[0].job_id, timeout_s=30.0)
    assert (job.status, job.worker_id) == ("completed", scene.workers["llm"]["worker_id"])


def test_a_question_of_an_earlier_version_is_carried_out(scene: Scene) -> None:
    """It put questions on the queue of all jobs, which the other worker consumes."""
    job = make_job("ask", {"prompt": "hi", "model": "ok"}, source="python")
    request = scene.bridge.admission.request(scene.bridge.admission.prepare(job))
    list(scene.bridge.admission._scripts.enqueue([msgspec.structs.replace(request, queue=QUEUE)]))
    ended = scene.bridge.follower.wait(job.job_id, timeout_s=60.0)
    assert (ended.status, ended.worker_id) == ("completed", scene.workers["worker-1"]["worker_id"])
    assert ended.result["text"] == "Hello world"
