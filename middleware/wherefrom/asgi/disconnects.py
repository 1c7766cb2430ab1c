"""Which exceptions say no more than that the connection is over.

A client's leaving reaches the app as an exception of its framework, of the server's ``send``, as a
cancellation, or as any of these wrapped: in an exception group, as a cause, or as the context of what the app
raised while it handled it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

# By name: Starlette, FastAPI, Litestar, Falcon, BlackSheep and the servers' own, none of which is imported.
_NAMES: Final = frozenset(
    {
        "ClientDisconnect",
        "ClientDisconnected",
        "WebSocketDisconnect",
        "WebSocketDisconnected",
        "WebSocketDisconnectedError",
        "WebSocketDisconnectError",
    }
)
# What a framework or a server raises for a use after the end; other errors of Python's own are bugs.
_MAY_FOLLOW: Final = (RuntimeError, OSError)
_MAX_DEPTH: Final = 20  # chains are the app's, and may have a cycle


def is_disconnect(
    error: BaseException, code: int | None = None, refused: Sequence[BaseException] = (), *, depth: int = 0
) -> bool:
    """Whether an exception only says that a connection is over, which the caller knows to be so.

    ``code`` is the close code that a websocket's app was told, which frameworks put into ``code`` of their
    exception; ``refused`` is what the server's ``send`` raised. Not excused are a bug that shows while a
    disconnect is handled, such as a ``KeyError``, and a group that holds any other exception.
    """
    return depth < _MAX_DEPTH and all(_says_so(leaf, code, refused, depth) for leaf in _leaves(error))


def is_cancellation(error: BaseException) -> bool:
    """Whether it is the cancellation of asyncio or trio, or the end of a coroutine that is dropped."""
    return not any(isinstance(leaf, (Exception, KeyboardInterrupt, SystemExit)) for leaf in _leaves(error))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions of a group, whatever its depth, or the exception itself."""
    waiting = [error]
    while waiting:
        current = waiting.pop()
        if isinstance(current, BaseExceptionGroup):
            waiting += current.exceptions
        else:
            yield current


def _says_so(error: BaseException, code: int | None, refused: Sequence[BaseException], depth: int) -> bool:
    if any(error is each for each in refused) or is_cancellation(error) or _is_named(error, code):
        return True
    cause = error.__cause__
    if cause is None and not error.__suppress_context__ and _may_follow(error):
        cause = error.__context__
    return cause is not None and is_disconnect(cause, code, refused, depth=depth + 1)


def _is_named(error: BaseException, code: int | None) -> bool:
    own = getattr(error, "code", None)
    if isinstance(own, int):
        return own == code
    return any(kind.__name__ in _NAMES for kind in type(error).__mro__)


def _may_follow(error: BaseException) -> bool:
    """Whether it is an exception that the handling of a disconnect may raise without being a bug."""
    return isinstance(error, _MAY_FOLLOW) or type(error).__module__ != "builtins"
