"""A client of MLflow's REST API: requests, experiments, and the variables of MLflow's own client.

https://mlflow.org/docs/latest/api_reference/python_api/mlflow.environment_variables.html
"""

from __future__ import annotations

import threading
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

import orjson

from ..exceptions import SettingsError, StoreUnavailableError
from ..exporters.endpoint import Endpoint, tls_context
from ..exporters.http import (
    RETRYABLE,
    Connection,
    NotNowError,
    RefusedError,
    Remote,
    Response,
)
from ..process import process
from .wire import mapping_in

WORTH_WAITING: Final = RETRYABLE | {301, 302, 303, 307, 308, 401, 403, 404}
"""Statuses after which to try again: also those for a wrong address, credential or experiment, which an
operator can correct. The traces recorded until then are worth keeping."""

NOT_FOUND: Final = 404

MAX_BODY: Final = 4_000_000
"""Bytes of a response, at most."""
MAX_PAGE: Final = 64_000_000
"""Bytes of a response with traces, at most."""

DEFAULT: Final = "default"
MLFLOW_DEFAULT: Final = "Default"
"""MLflow's name for our experiment ``default``."""

TRACES: Final = "api/3.0/mlflow/traces"
EXPERIMENTS: Final = "api/2.0/mlflow/experiments"
TRACKING_URI: Final = "MLFLOW_TRACKING_URI"

# The server takes some 10 ms for each trace, mostly waiting for its database.
_LANES: Final = 4
_MAX_FAILURES: Final = 8  # in a row: the server is taken to be down
_ACTIVE: Final = "active"
_TRUE: Final = frozenset({"true", "1"})


def server_endpoint(url: str) -> Endpoint:
    """Parse the URL of an MLflow server, which may have a path prefix.

    Raises:
        SettingsError: it is not an ``http`` or ``https`` URL.
    """
    return Endpoint.parse(url, complete=False, called="the MLflow server", example="host:5000")


_Content = TypeVar("_Content", dict[str, Any], dict[str, Any] | None)
Outcome = NotNowError | RefusedError | None
"""The outcome of a request; ``None`` if the server accepted it."""


class MLflowAPI(Remote):
    """Sends requests over four connections. ``options`` are those of ``Remote``. Not thread-safe."""

    def __init__(self, endpoint: Endpoint, **options: Any) -> None:
        super().__init__(endpoint, **{"retryable": WORTH_WAITING, **options})
        self._prefix = endpoint.target.rstrip("/") + "/"
        self._json_headers = {**self.headers, "content-type": "application/json"}
        self._lanes = self._connections()

    def _connections(self) -> list[Connection]:
        return [self.connect() for _ in range(_LANES)]

    def abandon_to_parent(self) -> None:
        """In a forked child: open new connections; the parent may be using its own."""
        process.never_close(self._lanes)
        self._lanes = self._connections()

    def close(self) -> None:
        """Close the connections."""
        for lane in self._lanes:
            lane.close()

    def get(self, path: str, query: Mapping[str, Any], *, most: int = MAX_BODY) -> dict[str, Any]:
        """GET a JSON object of at most ``most`` bytes; a value of ``query`` may be a list.

        Raises:
            StoreUnavailableError: the server does not respond with one now.
            RefusedError: it never will.
        """
        return self._content(self._answer("GET", f"{path}?{urlencode(query, doseq=True)}", most=most), most)

    def find(self, path: str, query: Mapping[str, Any], *, most: int = MAX_BODY) -> dict[str, Any] | None:
        """Like ``get``, but return ``None`` if the server responds that the resource does not exist."""
        answer = self._answer("GET", f"{path}?{urlencode(query, doseq=True)}", most=most)
        if answer.status == NOT_FOUND and "json" in answer.content_type:
            return None
        return self._content(answer, most)

    def post(self, path: str, body: Any, *, most: int = MAX_BODY) -> dict[str, Any]:
        """POST an object and return the JSON object of the response. Raises what ``get`` does."""
        return self._content(self._answer("POST", path, body, most=most), most)

    def post_all(self, path: str, bodies: Sequence[bytes]) -> list[tuple[int, Outcome]]:
        """POST JSON texts on all connections at once; return the index and the outcome of each.

        After eight failures in a row, or when the server asks to wait, the rest is neither sent nor among the
        outcomes.
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
        """POST a JSON text and return the outcome."""
        try:
            self.raise_for_status(self.request(lane, "POST", self._prefix + path, self._json_headers, body))
        except (NotNowError, RefusedError) as error:
            return error
        return None

    def _answer(self, method: str, path: str, body: Any = None, *, most: int) -> Response:
        headers = self.headers if body is None else self._json_headers
        content = None if body is None else orjson.dumps(body)
        return self.request(self._lanes[0], method, self._prefix + path, headers, content, max_body=most)

    def _content(self, answer: Response, most: int) -> dict[str, Any]:
        self.raise_for_status(answer)
        if (
            answer.problem is not None
        ):  # a truncated response may be complete next time; one that is too large will not be smaller
            message = self.describe(f"answered {answer.problem}")
            if len(answer.body) < most:
                raise NotNowError(message)
            raise RefusedError(message, answer.status)
        try:
            content = orjson.loads(answer.body)
        except ValueError:
            content = None
        if not isinstance(content, dict):  # a proxy's page, or another server
            found = answer.content_type or "nothing"
            message = self.describe(f"answered {found} where MLflow answers a JSON object")
            raise RefusedError(message, answer.status)
        return content


class _Posting:
    """A queue of bodies, from which each connection takes the next one."""

    def __init__(self, api: MLflowAPI, path: str, bodies: Sequence[bytes]) -> None:
        self.outcomes: list[tuple[int, Outcome]] = []
        self.error: BaseException | None = None
        self._api = api
        self._path = path
        self._left = iter(enumerate(bodies))
        self._failures = 0
        self._lock = threading.Lock()

    def work(self, lane: Connection) -> None:
        """Post on one connection until the queue is empty, or the server does not accept anything."""
        try:
            while (item := self._next()) is not None:
                place, body = item
                outcome = self._api.outcome(lane, self._path, body)
                with self._lock:
                    self.outcomes.append((place, outcome))
                    self._failures = self._failures + 1 if isinstance(outcome, NotNowError) else 0
        except BaseException as error:  # noqa: BLE001 - post_all raises it
            self.error = error

    def _next(self) -> tuple[int, bytes] | None:
        with self._lock:
            if self._failures >= _MAX_FAILURES or self._api.is_paused or self.error is not None:
                return None
            return next(self._left, None)


class Experiments:
    """Finds experiments by name or id, creates missing ones, and caches their ids."""

    def __init__(self, api: MLflowAPI) -> None:
        self._api = api
        self._ids: dict[str, str] = {}
        self._checked: set[str] = set()

    def id_of(self, name: str) -> str:
        """Return the id of an experiment, which is created if there is none of that name.

        Raises:
            StoreUnavailableError: the server is unavailable, or the experiment is deleted there.
        """
        if name not in self._ids:
            named = self.named(name)
            self._ids[name] = self.found(named) or self._made(named)
        return self._ids[name]

    @staticmethod
    def named(name: str) -> str:
        """Return MLflow's name for one of our experiments."""
        return MLFLOW_DEFAULT if name == DEFAULT else name

    def found(self, name: str) -> str | None:
        """Return the id of an experiment, ``None`` if there is none of that name.

        Raises:
            StoreUnavailableError: the server is unavailable, or the experiment is deleted there.
        """
        found = self._look_up(self._api.find, "get-by-name", {"experiment_name": name})
        return None if found is None else self._id_in(mapping_in(found, "experiment"))

    def check(self, experiment_id: str) -> str:
        """Return the id if there is an experiment with it.

        Raises:
            StoreUnavailableError: there is none, or the server is unavailable.
        """
        if experiment_id not in self._checked:
            found = self._look_up(self._api.get, "get", {"experiment_id": experiment_id})
            self._checked.add(self._id_in(mapping_in(found, "experiment")))
        return experiment_id

    def forget(self) -> None:
        """Clear the cache: an experiment may have been deleted, or another server have taken over."""
        self._ids.clear()
        self._checked.clear()

    def _look_up(
        self, verb: Callable[[str, dict[str, str]], _Content], path: str, query: dict[str, str]
    ) -> _Content:
        try:
            return verb(f"{EXPERIMENTS}/{path}", query)
        except RefusedError as refusal:
            # Nothing can be sent without an experiment: wait, as for a server that is unavailable.
            raise StoreUnavailableError(str(refusal)) from refusal

    def _made(self, name: str) -> str:
        try:
            return self._id_in(self._api.post(f"{EXPERIMENTS}/create", {"name": name}))
        except RefusedError as refusal:
            if (found := self.found(name)) is not None:  # another worker of the same application was first
                return found
            raise StoreUnavailableError(str(refusal)) from refusal

    def _id_in(self, experiment: Mapping[str, Any]) -> str:
        """The id of an active experiment in a response; ``create`` responds with nothing but the id."""
        if experiment.get("lifecycle_stage", _ACTIVE) != _ACTIVE:
            message = f"has deleted the experiment {experiment.get('name')!r}: restore it, or name another"
            raise StoreUnavailableError(self._api.describe(message))
        if not (experiment_id := experiment.get("experiment_id")):
            raise StoreUnavailableError(self._api.describe("answered without the id of an experiment"))
        return str(experiment_id)


def access_options(url: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return options of ``MLflowExporter`` and ``MLflowReader`` from the variables of MLflow's client.

    If ``MLFLOW_TRACKING_URI`` is a server, the credentials are only for that one: a password must not reach
    another.

    Raises:
        SettingsError: a variable is invalid.
    """
    endpoint = server_endpoint(url)
    headers = {}
    if not endpoint.authorization and _is_tracking_server(endpoint, environ):
        user, password = environ.get("MLFLOW_TRACKING_USERNAME"), environ.get("MLFLOW_TRACKING_PASSWORD")
        if user and password:
            headers["authorization"] = "Basic " + b64encode(f"{user}:{password}".encode()).decode()
        elif token := environ.get("MLFLOW_TRACKING_TOKEN"):
            headers["authorization"] = f"Bearer {token}"
    if workspace := environ.get("MLFLOW_WORKSPACE"):
        headers["x-mlflow-workspace"] = workspace
    context = tls_context(
        "MLFLOW_TRACKING",
        trusted=environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH"),
        certificate=environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH"),
        verify=environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() not in _TRUE,
    )
    options: dict[str, Any] = {"headers": headers, "ssl_context": context, "environ": environ}
    if timeout := environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT"):
        options["timeout"] = _seconds(timeout)
    return options


def _is_tracking_server(endpoint: Endpoint, environ: Mapping[str, str]) -> bool:
    try:
        return server_endpoint(environ.get(TRACKING_URI, "")).origin == endpoint.origin
    except SettingsError:  # not set, or a path
        return True


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < 1e6:
        raise SettingsError(f"MLFLOW_HTTP_REQUEST_TIMEOUT={text!r} cannot be used: it takes seconds")
    return seconds
