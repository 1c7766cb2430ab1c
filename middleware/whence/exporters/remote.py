"""A server that is asked over HTTP: what goes with each request, and what its answers mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from ..exceptions import StoreUnavailableError
from .answers import Answer
from .connection import Connection
from .endpoint import Endpoint

if TYPE_CHECKING:
    from ssl import SSLContext

# OTLP/HTTP, "Retryable Response Codes", and the one that HTTP itself calls so.
RETRYABLE: Final = frozenset({408, 429, 502, 503, 504})

# What a single item among many may be to blame for.
_DIVISIBLE: Final = frozenset({400, 413, 422, 500})
_UNSUPPORTED: Final = 415
_LONGEST_PAUSE_S: Final = 120.0
_SHORTEST_SECRET: Final = 4


class RefusedError(Exception):
    """A request that will never be taken as it is; ``status`` is what the server answered.

    ``divisible``: parts of it may be. ``unsupported``: the server does not read this encoding.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
        self.divisible = status in _DIVISIBLE
        self.unsupported = status == _UNSUPPORTED


class NotNowError(StoreUnavailableError):
    """A request that was not taken now; ``status`` is what the server answered, ``None`` when it did not."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Remote:
    """What is known of a server: where it is, how to ask, when it wants to be asked.

    ``headers`` go with each request, and their values never into a message. ``retryable`` are the statuses
    after which the same request may be taken later. Not safe for threads.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        headers: Mapping[str, str],
        timeout: float,
        ssl_context: SSLContext | None,
        environ: Mapping[str, str],
        clock: Callable[[], float],
        retryable: frozenset[int] = RETRYABLE,
    ) -> None:
        self.endpoint = endpoint
        self.headers = dict(headers)
        if endpoint.authorization:
            self.headers.setdefault("authorization", endpoint.authorization)
        self._secrets = [value for value in self.headers.values() if len(value) >= _SHORTEST_SECRET]
        self._timeout = timeout
        self._ssl_context = ssl_context
        self._environ = environ
        self._clock = clock
        self._retryable = retryable
        self._not_before = clock()

    def connect(self, **options: int) -> Connection:
        """A connection of its own."""
        return Connection(
            self.endpoint,
            timeout=self._timeout,
            ssl_context=self._ssl_context,
            environ=self._environ,
            **options,
        )

    def check_pause(self) -> None:
        """Go on unless the server has said when to come back.

        Raises:
            StoreUnavailableError: it is too early.
        """
        left = self._not_before - self._clock()
        if left > 0:
            raise StoreUnavailableError(self.told(f"asked to wait, {left:.1f} s more"))

    @property
    def asks_to_wait(self) -> bool:
        """Whether the server has said when to come back, and it is too early."""
        return self._not_before > self._clock()

    def judge(self, answer: Answer) -> None:
        """Raise for an answer that is no success.

        Raises:
            StoreUnavailableError: the server does not take the request now.
            RefusedError: it never will, or something in it makes the server fail.
        """
        if 200 <= answer.status < 300:
            return
        told = self.told(f"answered {answer.status}: {answer.message()}")
        if answer.status not in self._retryable:
            raise RefusedError(told, answer.status)
        if (pause := answer.pause()) is not None:
            self._not_before = self._clock() + min(pause, _LONGEST_PAUSE_S)
        raise NotNowError(told, answer.status)

    def unreachable(self, error: Exception) -> NotNowError:
        """No answer came, as the error to raise."""
        return NotNowError(self.told(f"cannot be reached: {error} ({type(error).__name__})"))

    def told(self, message: str) -> str:
        """The sentence for the log, without what was sent in headers."""
        for secret in self._secrets:
            message = message.replace(secret, "***")
        return f"{self.endpoint.url} {message}"


def leave_to_parent(connection: Connection) -> None:
    """In a forked child: keep a connection of the parent's from being used or closed.

    Another thread of the parent may have been at work in it when the process forked.
    """
    _inherited.append(connection)


_inherited: list[Connection] = []
