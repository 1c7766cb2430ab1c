"""MLflow's REST API, on a few connections kept alive."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlencode

import orjson

from ..endpoint import Endpoint
from ..http import RETRYABLE, Answer, Connection, NotNowError, RefusedError, Remote, leave_to_parent

WORTH_WAITING: Final = RETRYABLE | {301, 302, 303, 307, 308, 401, 403, 404}
"""Beside what any server may answer for a while: what a wrong address, credential or experiment is answered
with. That is put right by people, and what is recorded meanwhile is worth keeping."""

NOT_FOUND: Final = 404

_LANES: Final = 4
_MAX_FAILURES: Final = 8
MAX_BODY: Final = 4_000_000
MAX_PAGE: Final = 64_000_000
"""How long an answer may be, in bytes: usually, and one with traces."""


def server_endpoint(url: str) -> Endpoint:
    """An MLflow server, with the prefix it may be served under.

    Raises:
        SettingsError: it is no URL of ``http`` or ``https``.
    """
    return Endpoint.parse(url, complete=False, called="the MLflow server", example="host:5000")


Outcome = NotNowError | RefusedError | None
"""What became of a request: ``None`` when it was taken."""


class MLflowAPI(Remote):
    """Asks MLflow's REST API. ``endpoint`` is the server; ``options`` are those of ``Remote``.

    Not safe for threads.
    """

    def __init__(self, endpoint: Endpoint, **options: Any) -> None:
        super().__init__(endpoint, **{"retryable": WORTH_WAITING, **options})
        self._prefix = endpoint.target.rstrip("/") + "/"
        self._lanes = self._connections()

    def _connections(self) -> list[Connection]:
        return [self.connect() for _ in range(_LANES)]

    def leave_to_parent(self) -> None:
        """In a forked child: the parent's connections are neither used nor closed."""
        for lane in self._lanes:
            leave_to_parent(lane)
        self._lanes = self._connections()

    def close(self) -> None:
        """Hang up."""
        for lane in self._lanes:
            lane.close()

    def get(self, path: str, query: Mapping[str, Any], *, most: int = MAX_BODY) -> Any:
        """The JSON at a path of the server, of ``most`` bytes; a value of ``query`` may be a list.

        Raises:
            StoreUnavailableError: the server does not answer so now.
            RefusedError: it never will.
        """
        return self._content(self._answer("GET", _with(path, query), most=most), most)

    def find(self, path: str, query: Mapping[str, Any], *, most: int = MAX_BODY) -> Any:
        """The same; ``None`` where the server says that there is none."""
        answer = self._answer("GET", _with(path, query), most=most)
        if answer.status == NOT_FOUND and "json" in answer.content_type:
            return None
        return self._content(answer, most)

    def post(self, path: str, body: Any, *, most: int = MAX_BODY) -> Any:
        """The JSON that a posted object is answered with. Raises what ``get`` does."""
        return self._content(self._answer("POST", path, body, most=most), most)

    def post_all(self, path: str, bodies: Sequence[bytes]) -> list[tuple[int, Outcome]]:
        """Post JSON texts, several at a time; the place of each, and what became of it.

        When the server takes none of eight in a row, or asks to wait, those that are not on their way yet are
        neither sent nor among the outcomes.
        """
        posting = _Posting(self, path, bodies)
        helpers = [
            threading.Thread(target=posting.work, args=(lane,), name="wherefrom-export", daemon=True)
            for lane in self._lanes[1 : len(bodies)]
        ]
        started = []
        with suppress(RuntimeError):  # out of threads, or the interpreter is shutting down
            for helper in helpers:
                helper.start()
                started.append(helper)
        posting.work(self._lanes[0])
        for helper in started:
            helper.join()
        if posting.error is not None:
            raise posting.error
        return posting.outcomes

    def outcome(self, lane: Connection, path: str, body: bytes) -> Outcome:
        """What becomes of a JSON text that is posted."""
        try:
            self.judge(self.ask(lane, "POST", self._prefix + path, self._headers_of_post(), body))
        except (NotNowError, RefusedError) as error:
            return error
        return None

    def _answer(self, method: str, path: str, body: Any = None, *, most: int) -> Answer:
        headers = self.headers if body is None else self._headers_of_post()
        content = None if body is None else orjson.dumps(body)
        return self.ask(self._lanes[0], method, self._prefix + path, headers, content, max_body=most)

    def _content(self, answer: Answer, most: int) -> Any:
        self.judge(answer)
        if answer.problem is not None:
            told = self.told(f"answered {answer.problem}")
            if len(answer.body) < most:
                raise NotNowError(told)
            raise RefusedError(told, answer.status)
        try:
            return orjson.loads(answer.body)
        except ValueError:
            told = self.told(f"answered {answer.content_type or 'nothing'} where MLflow answers JSON")
            raise RefusedError(told, answer.status) from None

    def _headers_of_post(self) -> dict[str, str]:
        return {**self.headers, "content-type": "application/json"}


def _with(path: str, query: Mapping[str, Any]) -> str:
    return f"{path}?{urlencode(query, doseq=True)}"


class _Posting:
    """Bodies on their way, each taken by the next lane that is free."""

    def __init__(self, api: MLflowAPI, path: str, bodies: Sequence[bytes]) -> None:
        self.outcomes: list[tuple[int, Outcome]] = []
        self.error: BaseException | None = None
        self._api = api
        self._path = path
        self._left = iter(enumerate(bodies))
        self._failures = 0
        self._lock = threading.Lock()

    def work(self, lane: Connection) -> None:
        """Post on one connection until nothing is left, or the server takes nothing."""
        try:
            while (item := self._next()) is not None:
                place, body = item
                outcome = self._api.outcome(lane, self._path, body)
                with self._lock:
                    self.outcomes.append((place, outcome))
                    self._failures = self._failures + 1 if isinstance(outcome, NotNowError) else 0
        except BaseException as error:  # noqa: BLE001 - raised where all lanes are done
            self.error = error

    def _next(self) -> tuple[int, bytes] | None:
        with self._lock:
            if self._failures >= _MAX_FAILURES or self._api.asks_to_wait or self.error is not None:
                return None
            return next(self._left, None)
