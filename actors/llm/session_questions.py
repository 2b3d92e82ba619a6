"""Recognizes questions about the session itself and answers them from its messages, without a model."""

from __future__ import annotations

import re

from middleware.job.sessions import SessionFacts, SessionMessage, cut_text

#: Longer prompts ask for something else too.
_QUESTION_MAX = 120
#: Number of messages that an answer quotes (the latest), and the characters of each.
_QUOTED_MAX = 6
_QUOTED_CHARS = 200

_TALK = r"(?:talk|speak|chat|discuss)(?:ing|ed)?(?: about)?"
_CONVERSATION = r"(?:conversation|session|chat|discussion)"
_TAIL = (
    r"(?: (?:so far|just now|now|before|earlier|last|last time|again|here|today|"
    rf"in (?:this|our) {_CONVERSATION}))*"
)
_PATTERNS = tuple(
    re.compile(pattern + _TAIL)
    for pattern in (
        rf"(?:what|which (?:topics?|things?|subjects?)) (?:were|are|have|had) we (?:just )?(?:been )?{_TALK}",
        rf"(?:what|which (?:topics?|things?|subjects?)) did we (?:just )?{_TALK}",
        rf"what (?:is|was|has) (?:this|our|the) {_CONVERSATION} (?:been )?(?:all )?about",
        rf"(?:do|can) you (?:still )?(?:remember|recall) what we (?:were|have been|had been)? ?{_TALK}",
        rf"(?:please )?(?:remind me|tell me|recall) (?:of )?what we (?:were|have been|had been)? ?{_TALK}",
        r"where (?:were we|did we (?:leave off|stop|get to))",
        r"what did i (?:just )?(?:ask|say|tell)(?: (?:you|to you))?",
        r"what (?:did you|have you) (?:just )?(?:say|said|answer|answered|tell me|told me)",
        r"what (?:was|were) my (?:last|previous|first|earlier) (?:question|message|prompt)s?",
        r"what (?:was|were) your (?:last|previous|first|earlier) (?:answer|message|reply|replies)s?",
        r"how many (?:messages|questions|answers) (?:are there|did (?:i|we) (?:ask|send))",
        r"how many (?:messages|questions|answers) have (?:i|we|you) (?:asked|sent|exchanged|written|given)",
        rf"how many (?:messages|questions|answers) does this {_CONVERSATION} have",
        rf"(?:how long|since when) (?:have we been|are we) {_TALK}",
    )
)


def is_session_question(prompt: str) -> bool:
    """Return whether a prompt asks about the session itself, and about nothing else.

    Args:
        prompt: The prompt; case, punctuation and spaces are ignored.
    """
    if len(prompt) > _QUESTION_MAX:
        return False
    words = re.sub(r"[^a-z0-9]+", " ", prompt.lower().replace("'", " ")).strip()
    words = words.replace("what re we", "what are we")
    for opening in ("ok ", "okay ", "so ", "sorry ", "hey ", "hi ", "please ", "wait ", "and "):
        words = words.removeprefix(opening)
    words = words.removesuffix(" please")
    return any(pattern.fullmatch(words) for pattern in _PATTERNS)


def answer_session_question(session_id: str, facts: SessionFacts | None, kept: list[SessionMessage]) -> str:
    """Return a summary of a session: number of messages, first and last time, and the latest messages.

    Args:
        session_id: Id of the session.
        facts: Its statistics; None if it has no messages.
        kept: Its messages, oldest first.
    """
    if facts is None or not kept:
        return f"Nothing yet: session {session_id} has no messages."
    questions = sum(message.role == "user" for message in kept)
    dropped = facts.messages - len(kept)
    lines = [
        f"Session {session_id} has {_count(facts.messages, 'message')}, from {_time(facts.began_at)} to"
        f" {_time(facts.last_at)} (UTC)." + (f" The last {len(kept)} are kept." if dropped > 0 else ""),
        f"You asked {_count(questions, 'question')}"
        + (" in them" if dropped > 0 else "")
        + f" and got {_count(len(kept) - questions, 'answer')}. The last messages:",
        "",
    ]
    if len(kept) > _QUOTED_MAX:
        lines[-1] = f"({len(kept) - _QUOTED_MAX} earlier ones are shown by '3ox sessions show {session_id}'.)"
    for message in kept[-_QUOTED_MAX:]:
        who = "you" if message.role == "user" else "answer"
        text = cut_text(" ".join(message.text.split()), _QUOTED_CHARS)
        lines.append(f"[{_time(message.at)}] {who}: {text}")
    return "\n".join(lines) + "\n"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _time(at: str) -> str:
    return at[:19].replace("T", " ")
