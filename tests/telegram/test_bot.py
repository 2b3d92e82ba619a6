"""The bot in a chat: a real ``3ox telegram``, a real worker, a local Bot API."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from ingress.demo.bot_api import BotApi, broken, dropped, flood, units
from ingress.telegram.update_handler import job_id_for
from tests.fake_openai import answers, hangs
from tests.proxy import Proxy
from tests.support import eventually, run_3ox
from tests.telegram.conftest import Scene
from tests.telegram.running import ADMIN, CHAT, GROUP, OTHER_CHAT, STRANGER


def reply_to(api: BotApi, chat_id: int, update_id: int) -> list[dict[str, object]]:
    """Return the bot's messages that answer the message of an update."""
    asked = api.updates[update_id]["message"]["message_id"]
    return [
        message
        for message in api.messages(chat_id)
        if message.get("reply_to_message", {}).get("message_id") == asked
    ]


def job_of(api: BotApi, update_id: int) -> str:
    """Return the job id of an update."""
    date_s = api.updates[update_id]["message"]["date"]
    return job_id_for(str(api.bot["id"]), update_id, date_s * 1000)


def await_reply(api: BotApi, chat_id: int, update_id: int, beginning: str) -> str:
    """Wait until the only reply to an update begins with a text; return it."""

    def said() -> bool:
        return any(
            str(message["text"]).startswith(beginning) for message in reply_to(api, chat_id, update_id)
        )

    api.wait(said)
    found = reply_to(api, chat_id, update_id)
    assert len(found) == 1
    return str(found[0]["text"])


def await_answer(api: BotApi, chat_id: int, update_id: int, text: str) -> None:
    """Wait until the only reply to an update is this text."""
    api.wait(lambda: [message["text"] for message in reply_to(api, chat_id, update_id)] == [text])


def test_a_text_is_answered_in_the_session_of_its_chat(scene: Scene) -> None:
    """The "working…" message becomes the answer; the job has source, chat, session and trust."""
    update_id = scene.api.say(CHAT, "hello there")
    await_answer(scene.api, CHAT, update_id, "hello there")
    message_id = reply_to(scene.api, CHAT, update_id)[0]["message_id"]
    assert isinstance(message_id, int)
    assert scene.api.versions(CHAT, message_id)[0].startswith("working…")
    job = scene.bot.bridge.reader.job(job_of(scene.api, update_id))
    assert (job.source, job.actor, job.session_id, job.trust) == ("telegram", "42", "tg_42", "member")
    assert job.idempotency_key == f"tg:7000000001:{update_id}"
    eventually(lambda: update_id not in {reply.update_id for reply in scene.bot.pending()})


def test_a_growing_answer_is_shown(scene: Scene) -> None:
    """While the model is still answering, the message shows the answer so far."""
    scene.model.plan(hangs("Once", " upon"))
    update_id = scene.api.say(OTHER_CHAT, "tell me")
    assert await_reply(scene.api, OTHER_CHAT, update_id, "Once upon").endswith("…")
    job_id = job_of(scene.api, update_id)
    said = scene.api.say(OTHER_CHAT, f"/cancel {job_id[-8:]}")
    await_reply(scene.api, OTHER_CHAT, said, f"Stopping: {job_id}.")
    assert "was cancelled" in await_reply(scene.api, OTHER_CHAT, update_id, job_id[-8:])


def test_a_long_answer_is_split(scene: Scene) -> None:
    """8,000 emoji are 16,000 units: four messages, each within the limit, nothing lost."""
    scene.model.plan(answers("😀" * 8000))
    before = len(scene.api.messages(OTHER_CHAT))
    scene.api.say(OTHER_CHAT, "smile")
    scene.api.wait(lambda: "".join(scene.api.texts(OTHER_CHAT)[before:]) == "😀" * 8000)
    texts = scene.api.texts(OTHER_CHAT)[before:]
    assert [units(text) for text in texts] == [4096, 4096, 4096, 3712]


def test_chats_that_are_not_allowed_get_no_answer(scene: Scene) -> None:
    """A chat that is not allowed gets no answer and no job; the log has its id and not the token."""
    jobs = scene.bot.bridge.reader.page(job_type="telegram", limit=1000)
    scene.api.say(STRANGER, "let me in")
    eventually(
        lambda: [line for line in scene.bot.log("telegram.not_allowed") if line["chat_id"] == STRANGER]
    )
    update_id = scene.api.say(CHAT, "/help")
    await_reply(scene.api, CHAT, update_id, "Send a message")
    assert scene.api.messages(STRANGER) == []
    assert len(scene.bot.bridge.reader.page(job_type="telegram", limit=1000).jobs) == len(jobs.jobs)


def test_commands(scene: Scene) -> None:
    """Each command answers; wrong use is answered with a remedy."""
    ran = scene.api.say(CHAT, "/run mill wheat and rye")
    text = await_reply(scene.api, CHAT, ran, "task.custom/mill")
    assert "ground wheat and rye" in text
    job = scene.bot.bridge.reader.job(job_of(scene.api, ran))
    assert (job.source, job.trust, job.payload) == ("telegram", "member", {"task": "wheat and rye"})
    for command, beginning in (
        ("/status", "store: healthy"),
        ("/jobs", "Processing: "),
        ("/jobs 2", "Processing: "),
        ("/jobs ²", "'²' is not a number."),
        (f"/job {job.job_id}", f"job: {job.job_id}"),
        ("/job", "/job needs one job id."),
        ("/job zzzz", "Job 'zzzz' not found."),
        (f"/cancel {job.job_id[-9:]}", f"Job {job.job_id} has already finished: completed."),
        ("/run mill", "/run needs a project and a task."),
        ("/run mil x", "Unknown project 'mil'. Did you mean 'mill'?"),
        ("/run ../x y", "Unknown project '../x'."),
        ("/nonsense", "Unknown command /nonsense."),
        ("/start", "Send a message"),
        ("/help@bridge_test_bot", "Send a message"),
    ):
        update_id = scene.api.say(CHAT, command)
        await_reply(scene.api, CHAT, update_id, beginning)


def test_a_command_for_another_bot_is_left_to_it(scene: Scene) -> None:
    """In a group the bot ignores ``/help@other`` and answers ``/help``."""
    before = len(scene.api.messages(GROUP))
    scene.api.say(GROUP, "/help@other_bot", user_id=5)
    update_id = scene.api.say(GROUP, "/help", user_id=5)
    await_reply(scene.api, GROUP, update_id, "Send a message")
    assert len(scene.api.messages(GROUP)) == before + 1


def test_documents_and_photos_go_to_the_station(scene: Scene) -> None:
    """Each is a job, captions as notes; the reply names it; a path in a name is ignored."""
    inbox = scene.bot.workspace.inbox
    first = scene.api.attach(CHAT, "../../etc/report.txt", b"figures" * 1000, caption="for May")
    said = await_reply(scene.api, CHAT, first, "report.txt (7000 bytes) is ")
    job = scene.bot.bridge.reader.job(said.rstrip(".").rpartition(" ")[2])
    assert "with your note as job" in said
    assert (job.job_type, job.payload["name"], job.payload["note"]) == (
        "ingest.file",
        "report.txt",
        "for May",
    )
    assert job.payload["sha256"] == hashlib.sha256(b"figures" * 1000).hexdigest()
    again = scene.api.attach(CHAT, "report.txt", b"figures" * 1000, caption="for May")
    said = await_reply(scene.api, CHAT, again, "report.txt (7000 bytes) is ")
    assert said.endswith(f" Same content as job {job.job_id}.")
    photo = scene.api.attach(CHAT, "", b"\xff\xd8jpeg", photo=True)
    await_reply(scene.api, CHAT, photo, f"photo-{photo}.jpg (6 bytes) is ")
    large = scene.api.attach(CHAT, "film.mkv", b"x" * 20_000_001)
    await_reply(scene.api, CHAT, large, "The file is too large")
    assert not list(inbox.glob("*.part")) + list(inbox.glob(".*.part"))
    assert not (inbox.parent / "etc").exists()


def test_calls_are_retried_after_limits_and_outages_of_telegram(scene: Scene) -> None:
    """429, 502 and lost connections, before and after the call: the answer arrives exactly once."""
    scene.api.fail("sendMessage", flood(1))
    scene.api.fail("editMessageText", broken())
    scene.api.fail("editMessageText", dropped())
    scene.api.fail("editMessageText", dropped(after=True))
    scene.api.fail("getUpdates", broken(500))
    scene.api.fail("getUpdates", flood(1))
    scene.api.fail("getUpdates", dropped(after=True))
    update_id = scene.api.say(OTHER_CHAT, "through thick and thin")
    await_answer(scene.api, OTHER_CHAT, update_id, "through thick and thin")
    assert [text for text in scene.api.texts(OTHER_CHAT) if text == "through thick and thin"] == [
        "through thick and thin"
    ]
    sends = [call for call in scene.api.calls if call.method == "sendMessage"][-2:]
    assert sends[1].at_s - sends[0].at_s >= 1.0


def test_an_unreadable_update_is_quarantined(scene: Scene) -> None:
    """A malformed update is logged and confirmed; the updates after it are answered."""
    scene.api.add({"message": {"message_id": "no number", "chat": 5}})
    poison = scene.api.add({"callback_query": ["nonsense"]})
    update_id = scene.api.say(CHAT, "after the poison")
    await_answer(scene.api, CHAT, update_id, "after the poison")
    assert poison in {line["update_id"] for line in scene.bot.log("telegram.set_aside")}
    scene.api.wait(lambda: scene.api.unconfirmed() == 0)


def test_an_admin_approves_with_a_button(scene: Scene) -> None:
    """The request has buttons; other users are refused, the admin's press releases the job."""
    scene.api.know(ADMIN)
    update_id = scene.api.say(CHAT, "/run guarded treasure")
    await_reply(scene.api, CHAT, update_id, "held: ")
    job_id = job_of(scene.api, update_id)
    scene.api.wait(lambda: any(job_id in text for text in scene.api.texts(ADMIN)))
    question = next(message for message in scene.api.messages(ADMIN) if job_id in message["text"])
    approve = question["reply_markup"]["inline_keyboard"][0][0]
    assert approve == {"text": "Approve", "callback_data": f"approve:{job_id}"}

    here = reply_to(scene.api, CHAT, update_id)[0]["message_id"]
    assert isinstance(here, int)
    refused = scene.api.press(CHAT, here, approve["callback_data"], user_id=CHAT)
    scene.api.wait(lambda: refused in scene.api.presses)
    assert scene.api.presses[refused] == "You are not allowed to approve or deny this job."
    assert scene.bot.bridge.reader.status_of(job_id) == "held"

    pressed = scene.api.press(ADMIN, question["message_id"], approve["callback_data"])
    scene.api.wait(lambda: pressed in scene.api.presses)
    assert scene.api.presses[pressed] == "Approved."
    assert "let in" in await_reply(scene.api, CHAT, update_id, "task.custom/guarded")
    scene.api.wait(lambda: "pproved by telegram:900" in str(scene.api.messages(ADMIN)))
    assert "reply_markup" not in scene.api.messages(ADMIN)[-1]


def test_a_long_question_says_that_it_is_not_all(scene: Scene) -> None:
    """The request says how much of the payload is hidden, and how to see it."""
    scene.api.know(ADMIN)
    update_id = scene.api.say(CHAT, "/run guarded " + "harmless " * 200 + "and the rest")
    await_reply(scene.api, CHAT, update_id, "held: ")
    job_id = job_of(scene.api, update_id)
    scene.api.wait(lambda: any(job_id in text for text in scene.api.texts(ADMIN)))
    question = next(text for text in scene.api.texts(ADMIN) if job_id in text)
    assert "the rest" not in question
    assert re.search(rf"\d+ more characters are not shown: 3ox jobs {job_id}", question)


def test_the_token_is_in_no_log(scene: Scene) -> None:
    """Neither 3ox.log nor the process's output contains the token."""
    update_id = scene.api.say(CHAT, "/status")
    await_reply(scene.api, CHAT, update_id, "store: healthy")
    for file in ("3ox.log", "telegram.out"):
        assert scene.api.token.encode() not in (scene.bot.workspace.home / file).read_bytes()


def test_without_a_token_it_says_what_is_missing(environ: dict[str, str]) -> None:
    """One line, exit code 2."""
    ran = run_3ox("telegram", environ=environ)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "@BotFather" in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_without_the_extra_it_says_how_to_install_it(environ: dict[str, str], tmp_path: Path) -> None:
    """Without python-telegram-bot, one line names the command that installs it."""
    hide = tmp_path / "sitecustomize.py"
    hide.write_text(
        "import importlib.util as u\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'telegram' else find(name, *a)\n"
    )
    path = f"{tmp_path}:{environ['PYTHONPATH']}"
    ran = run_3ox("telegram", environ={**environ, "PYTHONPATH": path, "BRIDGE_TELEGRAM_TOKEN": "1:x"})
    assert ran.returncode == 2
    assert "pip install 'cmd-bridge[telegram]'" in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_the_same_update_always_becomes_the_same_job() -> None:
    """The id is derived from bot, update and time, and is unique per update."""
    first = job_id_for("1", 7, 1_700_000_000_000)
    assert first == job_id_for("1", 7, 1_700_000_000_000)
    assert len({job_id_for("1", number, 1_700_000_000_000) for number in range(1000)}) == 1000


def test_the_bot_api_is_reached_through_a_socks_proxy(own: Scene) -> None:
    """With a name that only the proxy can resolve, and the NO_PROXY that desktops set."""
    with Proxy(int(own.api.url.rpartition(":")[2])) as proxy:
        own.bot.environ |= {
            "ALL_PROXY": f"socks5://{proxy.place}",
            "NO_PROXY": "localhost,[::1]",
            "BRIDGE_TELEGRAM_API": "http://api.telegram.test",
        }
        own.bot.start()
        update_id = own.api.say(CHAT, "/help")
        await_reply(own.api, CHAT, update_id, "Send a message to ask a question")
        assert {taken.target for taken in proxy.taken} == {"api.telegram.test:80"}
        assert own.bot.stop() == 0
