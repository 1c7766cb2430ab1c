"""A thread pool for queries, with deadlines and a limit on waiting requests.

It keeps the threads of the app around the pages free for the app.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Final, TypeVar

import anyio
from anyio import CapacityLimiter, from_thread, to_thread
from anyio.abc import TaskGroup
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from ..process import process
from ..stores import Snapshot
from ..stores.deadline import Deadline

# More threads would wait for each other: a query holds the GIL much of the time.
MOST_RUNNING: Final = 4

_Found = TypeVar("_Found")


class BusyError(Exception):
    """Too many requests run or wait; ``retry_after`` is in seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__("too many queries are running or waiting: try again in a few seconds")
        self.retry_after = retry_after


class QueryPool:
    """Runs the queries of an application in a few threads of its own.

    At most ``running`` queries run at once, and ``waiting`` more requests wait. Each query has a deadline of
    ``seconds``, which starts when the query starts. ``admitted`` is the number of requests that run or wait.
    """

    def __init__(self, *, seconds: float, running: int = MOST_RUNNING, waiting: int = 16) -> None:
        self._seconds = seconds
        self._threads = CapacityLimiter(running)
        self._most_admitted = running + waiting
        self.admitted = 0

    @property
    def running(self) -> int:
        """The number of queries that run now."""
        return self._threads.borrowed_tokens

    def answer(self, make: Callable[[Queries], Awaitable[Response]]) -> Response:
        """The response that ``make`` returns; its queries are cancelled when the client disconnects.

        The body of the request must have been read before.

        Raises:
            BusyError: too many requests run or wait. Raised when the response is sent.
        """
        return _PooledResponse(self, make)

    @contextmanager
    def admit(self) -> Iterator[Callable[[TaskGroup], Queries]]:
        """Count a request while it runs; what it gets makes its queries.

        Raises:
            BusyError: too many requests run or wait.
        """
        if self.admitted >= self._most_admitted:
            raise BusyError(retry_after=ceil(self._seconds))
        self.admitted += 1
        try:
            yield partial(Queries, self._threads, self._seconds)
        finally:
            self.admitted -= 1


class Queries:
    """The queries of one request; ``tasks`` are those of the request."""

    def __init__(self, threads: CapacityLimiter, seconds: float, tasks: TaskGroup) -> None:
        self._threads = threads
        self._seconds = seconds
        self._tasks = tasks
        self._deadline: Deadline | None = None
        self._is_cancelled = False

    async def query(self, function: Callable[[], _Found], seconds: float | None = None) -> _Found:
        """Call the function in a thread of the pool, with a deadline for the snapshots that it opens.

        ``seconds`` is another deadline than that of the pool.
        """

        def call() -> _Found:
            with self._new_deadline(seconds):
                return function()

        return await to_thread.run_sync(process.unrecorded, call, limiter=self._threads)

    def read(self, snapshot: Snapshot, function: Callable[[], _Found]) -> _Found:
        """Call the function, which reads the snapshot, with a deadline of its own.

        Raises:
            QueryTimeoutError: the deadline has passed.
            QueryCancelledError: the client has disconnected.
        """
        with self._new_deadline() as deadline, snapshot.until(deadline):
            return function()

    async def stream(self, make: Callable[[], Iterator[_Found]]) -> AsyncIterator[_Found]:
        """The items of an iterator that runs in one thread of the pool.

        It does not wait for a slow client: a snapshot that it holds is released as soon as possible, since an
        open one keeps the store from tidying up after writers.
        """
        items: deque[_Found | _End] = deque()
        is_ready = anyio.Event()

        def put(item: _Found | _End) -> None:
            items.append(item)
            is_ready.set()

        def produce() -> None:
            try:
                for item in make():
                    from_thread.run_sync(put, item)
            except Exception as error:  # noqa: BLE001 # raised where the items are read
                from_thread.run_sync(put, _End(error))
            else:
                from_thread.run_sync(put, _End())

        run = partial(to_thread.run_sync, process.unrecorded, produce, limiter=self._threads)
        self._tasks.start_soon(run)
        while True:
            await is_ready.wait()
            is_ready = anyio.Event()
            while items:
                item = items.popleft()
                if not isinstance(item, _End):
                    yield item
                elif item.error is not None:
                    raise item.error
                else:
                    return

    def _new_deadline(self, seconds: float | None = None) -> Deadline:
        deadline = self._deadline = Deadline(self._seconds if seconds is None else seconds)
        if self._is_cancelled:
            deadline.cancel()
        return deadline

    def cancel(self) -> None:
        """Cancel the running query; later ones fail at once."""
        self._is_cancelled = True
        if self._deadline is not None:
            self._deadline.cancel()


@dataclass(frozen=True, slots=True)
class _End:
    """The end of a stream, with the exception that ended it early."""

    error: Exception | None = None


class _PooledResponse(Response):
    """Makes the response when it is sent. A ``Response``, because FastAPI converts any other object."""

    def __init__(self, pool: QueryPool, make: Callable[[Queries], Awaitable[Response]]) -> None:
        super().__init__()
        self._pool = pool
        self._make = make

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._pool.admit() as make_queries:
            await _answer(make_queries, self._make, scope, receive, send)


async def _answer(
    make_queries: Callable[[TaskGroup], Queries],
    make: Callable[[Queries], Awaitable[Response]],
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    left = anyio.Event()
    is_started = False
    failure: Exception | None = None

    async def wait_for_leaving() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        left.set()
        queries.cancel()
        tasks.cancel_scope.cancel()

    async def receive_leaving() -> Message:
        await left.wait()
        return {"type": "http.disconnect"}

    async def send_and_note(message: Message) -> None:
        nonlocal is_started
        is_started = True
        await send(message)

    async with anyio.create_task_group() as tasks:
        queries = make_queries(tasks)
        tasks.start_soon(wait_for_leaving)
        try:
            response = await make(queries)
            await response(scope, receive_leaving, send_and_note)
        except Exception as error:  # noqa: BLE001 # raised below: a task group would wrap it in an exception group
            failure = error
        tasks.cancel_scope.cancel()
    if left.is_set():
        if not is_started:
            await Response(status_code=503)(
                scope, receive_leaving, send
            )  # middleware around the app expects a response
    elif failure is not None:
        raise failure
