"""Who has signed in: a random cookie for a token that was shown once, kept in this process only.

The token is looked up again with every request, so a session ends with its token; it cannot outlive the
process either, which asks for the token anew after a restart.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from http.cookies import CookieError, SimpleCookie

from msgspec import Struct

from ops.tokens import Principal, Tokens

COOKIE = "3ox_session"
#: Holds what the sign-in form has to send along; there is no session to keep it in yet.
FORM_COOKIE = "3ox_form"
#: A session that nobody uses ends after so long, and any after the longer time.
IDLE_S = 12 * 3600.0
LIFE_S = 7 * 86_400.0
#: More people than this do not look on; whoever has not looked for the longest signs in again.
SESSIONS_MAX = 1_000
_KEY_BYTES = 32
_COOKIES_MAX_CHARS = 4_096


class Session(Struct, kw_only=True):
    """One browser that has signed in.

    Attributes:
        token: It signed in with; never leaves this process.
        csrf: Every form of this session carries it.
        began_s: When, by a clock that nobody sets.
        used_s: When it was used last.
    """

    token: str
    csrf: str
    began_s: float
    used_s: float


class Sessions:
    """The sessions of one process; used in its event loop only.

    Args:
        tokens: Say who may.
        clock_s: Gives the time.
        limit: How many sessions there are at most.
    """

    def __init__(
        self, tokens: Tokens, *, clock_s: Callable[[], float] = time.monotonic, limit: int = SESSIONS_MAX
    ) -> None:
        self._tokens = tokens
        self._clock_s = clock_s
        self._limit = limit
        self._known: OrderedDict[str, Session] = OrderedDict()

    def begin(self, token: str) -> str | None:
        """Sign in.

        Args:
            token: As it was typed.

        Returns:
            The value of the cookie; None for a token that is not valid.
        """
        if self._tokens.check(token) is None:
            return None
        now_s = self._clock_s()
        key = secrets.token_urlsafe(_KEY_BYTES)
        csrf = secrets.token_urlsafe(_KEY_BYTES)
        self._known[_digest(key)] = Session(token=token, csrf=csrf, began_s=now_s, used_s=now_s)
        while len(self._known) > self._limit:
            self._known.popitem(last=False)
        return key

    def find(self, cookies: Mapping[str, str]) -> tuple[Session, Principal] | None:
        """Give the session of a request, and who it is; None without one that holds.

        Args:
            cookies: Of the request.
        """
        key = cookies.get(COOKIE)
        if key is None:
            return None
        place = _digest(key)
        session = self._known.get(place)
        if session is None:
            return None
        now_s = self._clock_s()
        principal = self._tokens.check(session.token)
        if principal is None or now_s - session.used_s > IDLE_S or now_s - session.began_s > LIFE_S:
            del self._known[place]
            return None
        session.used_s = now_s
        self._known.move_to_end(place)
        return session, principal

    def end(self, cookies: Mapping[str, str]) -> None:
        """Sign out."""
        self._known.pop(_digest(cookies.get(COOKIE, "")), None)

    def __len__(self) -> int:
        return len(self._known)


def is_same(given: str | None, expected: str | None) -> bool:
    """Compare what a form sent with what it was given; the time taken tells nothing."""
    if not given or not expected:
        return False
    return hmac.compare_digest(given.encode(errors="replace"), expected.encode())


def cookies_of(header: str) -> dict[str, str]:
    """Read a ``Cookie`` header; one that cannot be read holds nothing."""
    if len(header) > _COOKIES_MAX_CHARS:
        return {}
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(header).items()}
    except CookieError:
        return {}


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode(errors="replace")).hexdigest()


#: So many may fail within the time, of one address.
TRIES_MAX = 10
WINDOW_S = 60.0
#: Whoever has not failed for the longest is forgotten.
_KNOWN_MAX = 10_000


class SignInLimit:
    """Counts sign-ins that failed, by address; used in the event loop only.

    Args:
        clock_s: Gives the time.
    """

    def __init__(self, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._failed: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_s(self, who: str) -> int:
        """Tell for how many seconds this address has to wait; 0 if it may try."""
        times = self._failed.get(who)
        if times is None or len(times) < TRIES_MAX:
            return 0
        return max(0, math.ceil(times[0] + WINDOW_S - self._clock_s()))

    def note(self, who: str) -> None:
        """Count a failure."""
        times = self._failed.pop(who, None)
        times = deque(maxlen=TRIES_MAX) if times is None else times
        times.append(self._clock_s())
        self._failed[who] = times
        if len(self._failed) > _KNOWN_MAX:
            self._failed.popitem(last=False)
