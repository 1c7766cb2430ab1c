"""Serves the part of MLflow's REST API by which its Python client reads and assesses traces, from a store.

Paths, fields and error codes are those of MLflow 3.17's server, so that code written for MLflow needs nothing
but ``mlflow.set_tracking_uri``. The ids of experiments are those of the store.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from ..client import KnownExperiment, TraceClient
from ..exceptions import TraceNotFoundError, WherefromError
from ..model import Assessment, AssessmentKind, Trace, checks
from ..model.assessment import read_error, read_value
from ..stores import Store
from ..web.auth import Access
from ..web.failures import AccessError
from ..web.queries import BusyError, Queries, QueryPool
from .rest import (
    FORBIDDEN,
    INVALID,
    NOT_FOUND,
    UNAUTHENTICATED,
    Arguments,
    RestError,
    refusal,
    rest_error,
)
from .wire import Message, info_message, trace_message

MAX_BODY_BYTES: Final = 1_000_000  # a request holds a filter and ids, never a trace

Answer = Callable[[TraceClient, Arguments], Message]

_MAX_RESULTS: Final = 500  # of MLflow's server
_DEFAULT_RESULTS: Final = 100
_MAX_TRACES: Final = 500  # with their spans
_MAX_INFOS: Final = 10_000  # without spans
_MAX_EXPERIMENTS: Final = 50_000
_DEFAULT_EXPERIMENTS: Final = 1000
# The default experiment of MLflow, which its client uses if none is set, and ours.
_THEIR_DEFAULT_ID: Final = "0"
_THEIR_DEFAULT: Final = "Default"
_OUR_DEFAULT: Final = "default"
_DELETED_ONLY: Final = ("DELETED_ONLY", 2, "2")  # ViewType of service.proto


@dataclass(frozen=True, slots=True)
class Call:
    """A method, a path as Starlette writes it, and the function that answers."""

    method: str
    path: str
    answer: Answer


class _Experiments:
    """The experiments of a store, by id and by name."""

    def __init__(self, client: TraceClient) -> None:
        found = client.search_experiments(max_results=_MAX_EXPERIMENTS)
        self._by_name = {experiment.name: experiment for experiment in found}
        self._by_id = {str(experiment.id): experiment for experiment in found}

    def find(self, given: str) -> KnownExperiment | None:
        """Return the experiment with this id, or else with this name."""
        return self._by_id.get(given) or self.named(_THEIR_DEFAULT if given == _THEIR_DEFAULT_ID else given)

    def named(self, name: str) -> KnownExperiment | None:
        """Return the experiment with this name."""
        return self._by_name.get(name) or self._by_name.get(_OUR_DEFAULT if name == _THEIR_DEFAULT else name)

    def infos(self, traces: Iterable[Trace]) -> list[Message]:
        """Return the info of each trace."""
        return [info_message(trace.info, self._id(trace)) for trace in traces]

    def traces(self, traces: Iterable[Trace]) -> list[Message]:
        """Return each trace with its spans."""
        return [trace_message(trace, self._id(trace)) for trace in traces]

    def _id(self, trace: Trace) -> str:
        return str(self._by_name[trace.info.experiment].id)


def search_traces(client: TraceClient, arguments: Arguments) -> Message:
    """``SearchTracesV3``: a page of infos."""
    names = _names_at(arguments.items("locations"), _Experiments(client))
    order_by = arguments.texts("order_by")
    limit = arguments.integer("max_results", _DEFAULT_RESULTS, _MAX_RESULTS)
    token = arguments.text("page_token") or None
    # The filter is parsed even without an experiment to search, so that an invalid one is an error.
    found = client.search_traces(names, arguments.text("filter"), limit, order_by, token, include_spans=False)
    # Read anew: a trace that was found may be the first of its experiment.
    return _with_token({"traces": _Experiments(client).infos(found)}, found.token)


def get_trace_info(client: TraceClient, arguments: Arguments) -> Message:
    """``GetTraceInfoV3``: a trace without its spans."""
    trace = _trace(client, arguments.in_path("trace_id"), include_spans=False)
    return {"trace": {"trace_info": _Experiments(client).infos([trace])[0]}}


def get_trace(client: TraceClient, arguments: Arguments) -> Message:
    """``GetTrace``: a trace with the spans that it has so far."""
    trace = _trace(client, arguments.required_text("trace_id"), include_spans=True)
    return {"trace": _Experiments(client).traces([trace])[0]}


def get_traces(client: TraceClient, arguments: Arguments) -> Message:
    """``BatchGetTraces``: those of the traces that exist, with their spans."""
    found = client.get_traces(arguments.required_texts("trace_ids", _MAX_TRACES))
    return {"traces": _Experiments(client).traces(found)}


def get_infos(client: TraceClient, arguments: Arguments) -> Message:
    """``BatchGetTraceInfos``: those of the traces that exist, without spans."""
    ids = arguments.required_texts("trace_ids", _MAX_INFOS)
    found = client.get_traces(ids, include_spans=False)
    return {"trace_infos": _Experiments(client).infos(found)}


def set_tag(client: TraceClient, arguments: Arguments) -> Message:
    """``SetTraceTag``."""
    client.set_trace_tag(
        arguments.in_path("trace_id"), arguments.required_text("key"), arguments.text("value") or ""
    )
    return {}


def delete_tag(client: TraceClient, arguments: Arguments) -> Message:
    """``DeleteTraceTag``."""
    client.delete_trace_tag(arguments.in_path("trace_id"), arguments.required_text("key"))
    return {}


def create_assessment(client: TraceClient, arguments: Arguments) -> Message:
    """``CreateAssessment``, of a trace that may still come."""
    given = Assessment.from_dict(arguments.required_object("assessment"), arguments.in_path("trace_id"))
    return _assessment(client.log_assessment(replace(given, valid=True)))


def get_assessment(client: TraceClient, arguments: Arguments) -> Message:
    """``GetAssessmentRequest``."""
    return _assessment(client.get_assessment(*_assessment_ids(arguments)))


def update_assessment(client: TraceClient, arguments: Arguments) -> Message:
    """``UpdateAssessment``: the fields that the mask names; metadata is merged."""
    given = arguments.required_object("assessment")
    changes: dict[str, Any] = {}
    for path in (arguments.text("update_mask") or "").split(","):
        match path.strip():
            case "assessmentName" | "assessment_name":
                changes["name"] = given.get("assessment_name")
            case AssessmentKind.FEEDBACK | AssessmentKind.EXPECTATION as kind:
                _check_kind(client, arguments, kind)
                changes["value"] = read_value(AssessmentKind(kind), given.get(kind))
                changes["error"] = read_error(given.get(kind))
            case "rationale":
                changes["rationale"] = given.get("rationale")
            case "metadata":
                changes["metadata"] = checks.strings("metadata", given.get("metadata"))
    return _assessment(client.update_assessment(*_assessment_ids(arguments), **changes))


def _check_kind(client: TraceClient, arguments: Arguments, kind: str) -> None:
    found = client.get_assessment(*_assessment_ids(arguments)).kind
    if found != kind:
        raise RestError(INVALID, f"Cannot update the {kind} of what is {found}.")


def delete_assessment(client: TraceClient, arguments: Arguments) -> Message:
    """``DeleteAssessment``: as in MLflow, it is no error if there is none."""
    with suppress(TraceNotFoundError):
        client.delete_assessment(*_assessment_ids(arguments))
    return {}


def _assessment_ids(arguments: Arguments) -> tuple[str, str]:
    return arguments.in_path("trace_id"), arguments.in_path("assessment_id")


def _assessment(found: Assessment) -> Message:
    return {"assessment": found.to_dict()}


def get_experiment(client: TraceClient, arguments: Arguments) -> Message:
    """``GetExperiment``, by its id."""
    given = arguments.required_text("experiment_id")
    return _experiment(_Experiments(client).find(given), f"no experiment has the id {given!r}")


def get_experiment_by_name(client: TraceClient, arguments: Arguments) -> Message:
    """``GetExperimentByName``."""
    name = arguments.required_text("experiment_name")
    return _experiment(_Experiments(client).named(name), f"no experiment is named {name!r}")


def search_experiments(client: TraceClient, arguments: Arguments) -> Message:
    """``SearchExperiments``: none is ever deleted here."""
    limit = arguments.integer("max_results", _DEFAULT_EXPERIMENTS, _MAX_EXPERIMENTS)
    token = arguments.text("page_token") or None
    found = client.search_experiments(arguments.text("filter"), limit, arguments.texts("order_by"), token)
    shown = [] if arguments.is_one_of("view_type", _DELETED_ONLY) else found
    return _with_token({"experiments": [experiment_message(experiment) for experiment in shown]}, found.token)


def _experiment(found: KnownExperiment | None, message: str) -> Message:
    if found is None:
        raise RestError(NOT_FOUND, message)
    return {"experiment": experiment_message(found)}


def _trace(client: TraceClient, trace_id: str, *, include_spans: bool) -> Trace:
    found = client.get_traces([trace_id], include_spans=include_spans)
    if not found:
        raise RestError(NOT_FOUND, f"no trace has the id {trace_id!r}")
    return found[0]


def _names_at(locations: Sequence[Any], experiments: _Experiments) -> list[str]:
    """The names of the experiments at these locations; an unknown id stays as it is, and matches nothing."""
    if not locations:
        raise RestError(INVALID, "Missing value for required parameter 'locations'.")
    ids = [_experiment_id(location) for location in locations]
    return [found.name if (found := experiments.find(given)) else given for given in ids]


def _experiment_id(location: Any) -> str:
    place = location.get("mlflow_experiment") if isinstance(location, dict) else None
    given = place.get("experiment_id") if isinstance(place, dict) else None
    if not isinstance(given, str):
        raise RestError(
            INVALID,
            "a location takes the form {'mlflow_experiment': {'experiment_id': '1'}}",
        )
    return given


def _with_token(message: Message, token: str | None) -> Message:
    return message if token is None else message | {"next_page_token": token}


def experiment_message(experiment: KnownExperiment) -> Message:
    """Return an ``Experiment``; its artifact location is empty, because there are no artifacts."""
    return {
        "experiment_id": str(experiment.id),
        "name": experiment.name,
        "artifact_location": "",
        "lifecycle_stage": "active",
    }


_TRACES: Final = "/api/3.0/mlflow/traces"
_TAGS: Final = ("/api/2.0/mlflow/traces/{trace_id}/tags", _TRACES + "/{trace_id}/tags")
_ASSESSMENTS: Final = _TRACES + "/{trace_id}/assessments"
_ASSESSMENT: Final = _ASSESSMENTS + "/{assessment_id}"
_EXPERIMENTS: Final = "/api/2.0/mlflow/experiments"

CALLS: Final = (
    Call("POST", f"{_TRACES}/search", search_traces),
    Call("GET", f"{_TRACES}/get", get_trace),
    Call("GET", f"{_TRACES}/batchGet", get_traces),
    Call("POST", f"{_TRACES}/batchGetInfos", get_infos),
    Call("GET", _TRACES + "/{trace_id}", get_trace_info),
    *(Call("PATCH", path, set_tag) for path in _TAGS),
    *(Call("DELETE", path, delete_tag) for path in _TAGS),
    Call("POST", _ASSESSMENTS, create_assessment),
    Call("GET", _ASSESSMENT, get_assessment),
    Call("PATCH", _ASSESSMENT, update_assessment),
    Call("DELETE", _ASSESSMENT, delete_assessment),
    Call("GET", f"{_EXPERIMENTS}/get", get_experiment),
    Call("GET", f"{_EXPERIMENTS}/get-by-name", get_experiment_by_name),
    Call("POST", f"{_EXPERIMENTS}/search", search_experiments),
    Call("GET", f"{_EXPERIMENTS}/search", search_experiments),
)
"""Every call, in the order in which paths are tried."""


def check_access(request: Request, access: Access) -> None:
    """Check that the request may be answered.

    The token is a bearer token or the password of basic authentication: what MLflow's client sends if
    ``MLFLOW_TRACKING_TOKEN``, or ``_USERNAME`` and ``_PASSWORD``, are set.

    Raises:
        RestError: the host or the token is wrong.
    """
    try:
        access.check_host(request)
    except AccessError as error:
        raise RestError(
            FORBIDDEN, "without WHEREFROM_UI_TOKEN the server only answers requests to 127.0.0.1 or localhost"
        ) from error
    if access.token is not None and not access.is_token(_sent_token(request)):
        raise RestError(
            UNAUTHENTICATED,
            "this server requires a token: set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_PASSWORD with any"
            " MLFLOW_TRACKING_USERNAME, to the WHEREFROM_UI_TOKEN of the server",
        )


def check_media_type(request: Request) -> None:
    """Check that the media type is JSON, which a page of another origin cannot send without a preflight.

    Raises:
        RestError: it is another one.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise RestError(INVALID, "the body takes Content-Type: application/json")


def _sent_token(request: Request) -> str:
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    if scheme.lower() != "basic":
        return ""
    try:
        return b64decode(credentials, validate=True).decode().partition(":")[2]
    except (binascii.Error, ValueError):
        return ""


MLFLOW_VERSION: Final = "3.17.2"
"""The version of MLflow whose API this is; MLflow's client requests it."""

SECONDS_FOR_A_CALL: Final = 30.0
"""Seconds that the query of a call may take."""

# MLflow's client sends 32 requests at once: two of them are served.
_MOST_WAITING: Final = 64

Endpoint = Callable[[Request], Awaitable[ASGIApp]]


def make_application(store: Store, access: Access, pool: QueryPool | None = None) -> Starlette:
    """Return an ASGI application over ``store``: ``access`` checks clients, ``pool`` runs queries."""
    client = TraceClient(store)
    queries_of = pool or QueryPool(seconds=SECONDS_FOR_A_CALL, waiting=_MOST_WAITING)

    def answering(call: Call) -> Endpoint:
        async def endpoint(request: Request) -> ASGIApp:
            check_access(request, access)
            arguments = await _read(request)

            async def answer(queries: Queries) -> Response:
                return _json(await queries.query(lambda: call.answer(client, arguments)))

            return queries_of.answer(answer)

        return endpoint

    async def version(request: Request) -> Response:
        check_access(request, access)
        return PlainTextResponse(MLFLOW_VERSION)

    async def refuse(request: Request) -> Response:
        check_access(request, access)
        raise refusal(request.method, request.url.path)

    routes: list[BaseRoute] = [Route("/health", _health), Route("/version", version)]
    routes += [Route(call.path, answering(call), methods=[call.method]) for call in CALLS]
    routes.append(Route("/{path:path}", refuse, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]))
    return Starlette(routes=routes, exception_handlers=_HANDLERS)


async def _health(_request: Request) -> Response:
    return PlainTextResponse("OK")


async def _read(request: Request) -> Arguments:
    if request.method in {"GET", "HEAD"}:
        return Arguments.of_query(request.query_params, request.path_params)
    check_media_type(request)
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise RestError(INVALID, f"the body takes at most {MAX_BODY_BYTES:,} bytes")
    return Arguments.of_body(bytes(body), request.path_params)


def _json(content: object, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")


async def _answer_error(_request: Request, error: Exception) -> Response:
    failure = rest_error(error)
    response = _json(failure.to_dict(), failure.status)
    if isinstance(error, BusyError):
        response.headers["retry-after"] = str(error.retry_after)
    if failure.status == 401:
        response.headers["www-authenticate"] = 'Basic realm="Wherefrom"'
    return response


async def _answer_nobody(_request: Request, _error: Exception) -> Response:
    return Response(status_code=400)  # the client has disconnected


_HANDLERS: Final[dict[Any, Any]] = {
    RestError: _answer_error,
    WherefromError: _answer_error,
    BusyError: _answer_error,
    HTTPException: _answer_error,
    ClientDisconnect: _answer_nobody,
    Exception: _answer_error,
}
