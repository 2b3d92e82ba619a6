"""Sessions of signed-in browsers: a random cookie stands for an API token; kept in memory only.

The token is checked at each request, so a session ends when its token is revoked. It also ends with the
process: after a restart, users sign in again.
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
#: Cookie with the CSRF token of the sign-in form, before there is a session.
FORM_COOKIE = "3ox_form"
#: Lifetime of an unused session, and of any session.
IDLE_S = 12 * 3600.0
LIFE_S = 7 * 86_400.0
#: Number of sessions; the least recently used one is removed.
SESSIONS_MAX = 1_000
_KEY_BYTES = 32
_COOKIES_MAX_CHARS = 4_096


class Session(Struct, kw_only=True):
    """One browser that has signed in.

    Attributes:
        token: The API token; never leaves this process.
        csrf: CSRF token that every form of this session must have.
        began_s: Start, by the monotonic clock.
        used_s: Last use.
    """

    token: str
    csrf: str
    began_s: float
    used_s: float


class Sessions:
    """The sessions of one process; used in its event loop only.

    Args:
        tokens: The API tokens.
        clock_s: Returns the time.
        limit: Maximum number of sessions.
    """

    def __init__(
        self, tokens: Tokens, *, clock_s: Callable[[], float] = time.monotonic, limit: int = SESSIONS_MAX
    ) -> None:
        self._tokens = tokens
        self._clock_s = clock_s
        self._limit = limit
        self._known: OrderedDict[str, Session] = OrderedDict()

    def begin(self, token: str) -> str | None:
        """Start a session.

        Args:
            token: The API token that was entered.

        Returns:
            The value of the cookie; None if the token is not valid.
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
        """Return the session of a request and its user; None without a valid session.

        Args:
            cookies: Cookies of the request.
        """
        key = cookies.get(COOKIE)
        if key is None:
            return None
        digest = _digest(key)
        session = self._known.get(digest)
        if session is None:
            return None
        now_s = self._clock_s()
        principal = self._tokens.check(session.token)
        if principal is None or now_s - session.used_s > IDLE_S or now_s - session.began_s > LIFE_S:
            del self._known[digest]
            return None
        session.used_s = now_s
        self._known.move_to_end(digest)
        return session, principal

    def end(self, cookies: Mapping[str, str]) -> None:
        """End the session of a request."""
        self._known.pop(_digest(cookies.get(COOKIE, "")), None)

    def __len__(self) -> int:
        return len(self._known)


def is_same(given: str | None, expected: str | None) -> bool:
    """Return whether a form sent the expected CSRF token; compares in constant time."""
    if not given or not expected:
        return False
    return hmac.compare_digest(given.encode(errors="replace"), expected.encode())


def cookies_of(header: str) -> dict[str, str]:
    """Return the cookies of a ``Cookie`` header; none if it cannot be parsed."""
    if len(header) > _COOKIES_MAX_CHARS:
        return {}
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(header).items()}
    except CookieError:
        return {}


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode(errors="replace")).hexdigest()


#: Failed sign-ins of one address within the window, at most.
ATTEMPTS_MAX = 10
WINDOW_S = 60.0
#: Addresses remembered; the one with the oldest failure is forgotten.
_KNOWN_MAX = 10_000


class SignInLimit:
    """Limits failed sign-ins by address; used in the event loop only.

    Args:
        clock_s: Returns the time.
    """

    def __init__(self, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._failed: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_s(self, address: str) -> int:
        """Return the number of seconds that an address has to wait; 0 if it may sign in."""
        times = self._failed.get(address)
        if times is None or len(times) < ATTEMPTS_MAX:
            return 0
        return max(0, math.ceil(times[0] + WINDOW_S - self._clock_s()))

    def record_failure(self, address: str) -> None:
        """Count a failed sign-in."""
        times = self._failed.pop(address, None)
        times = deque(maxlen=ATTEMPTS_MAX) if times is None else times
        times.append(self._clock_s())
        self._failed[address] = times
        if len(self._failed) > _KNOWN_MAX:
            self._failed.popitem(last=False)
