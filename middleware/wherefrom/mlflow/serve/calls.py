"""What a request asks with: the parameters of a GET, or the JSON object of any other, each of its type."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from starlette.datastructures import QueryParams

from ...client import KnownExperiment, TraceClient
from ...model import Trace
from .errors import INVALID, NOT_FOUND, RestError
from .messages import Message, experiment_message, info_message, trace_message

MAX_BODY_BYTES: Final = 1_000_000

_INTEGER: Final = re.compile(r"-?[0-9]{1,18}")
_SHOWN: Final = 60


class Arguments:
    """Named values; a getter gives ``None``, or no values, for one that is absent.

    Raises:
        RestError: from each getter, where the value is of another type.
    """

    def __init__(self, given: Mapping[str, Any], path: Mapping[str, str]) -> None:
        self._given = given
        self._path = path

    @classmethod
    def of_query(cls, query: QueryParams, path: Mapping[str, str]) -> Arguments:
        """Those of a GET; a name that comes once may be meant as a list."""
        return cls({name: _Several(query.getlist(name)) for name in query}, path)

    @classmethod
    def of_body(cls, body: bytes, path: Mapping[str, str]) -> Arguments:
        """Those of a JSON body.

        Raises:
            RestError: it is no JSON object.
        """
        try:
            given = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise RestError(INVALID, f"the body is not JSON: {error}") from error
        if not isinstance(given, dict):
            raise RestError(INVALID, f"the body takes a JSON object, not {_shown(given)}")
        return cls(given, path)

    def in_path(self, name: str) -> str:
        """A part of the path."""
        return self._path[name]

    def text(self, name: str) -> str | None:
        """A string."""
        value = self._one(name)
        if value is not None and not isinstance(value, str):
            raise _mistyped(name, "a string", value)
        return value

    def required_text(self, name: str) -> str:
        """A string that is not empty."""
        if not (value := self.text(name)):
            raise _missing(name)
        return value

    def texts(self, name: str) -> list[str]:
        """A list of strings."""
        values = self.items(name)
        for value in values:
            if not isinstance(value, str):
                raise _mistyped(name, "a list of strings", value)
        return values

    def required_texts(self, name: str, most: int) -> list[str]:
        """A list of strings, at least one and at most so many."""
        values = self.texts(name)
        if not values:
            raise _missing(name)
        if len(values) > most:
            raise RestError(INVALID, f"{name} takes at most {most:,} values, not {len(values):,}")
        return values

    def items(self, name: str) -> list[Any]:
        """A list of anything."""
        value = self._given.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise _mistyped(name, "a list", value)
        return value

    def integer(self, name: str, default: int, most: int) -> int:
        """A whole number from 1 to ``most``, perhaps written as a string, as protobuf's JSON has it."""
        value = self._one(name)
        if value is None:
            return default
        if isinstance(value, str) and _INTEGER.fullmatch(value):
            value = int(value)
        if type(value) is not int or not 1 <= value <= most:
            raise _mistyped(name, f"a number from 1 to {most:,}", value)
        return value

    def is_one_of(self, name: str, values: Sequence[Any]) -> bool:
        """Whether it is one of these values."""
        return self._one(name) in values

    def _one(self, name: str) -> Any:
        value = self._given.get(name)
        return value[0] if isinstance(value, _Several) else value


class _Several(list[str]):
    """The values of a parameter of a query."""


def _missing(name: str) -> RestError:
    return RestError(INVALID, f"Missing value for required parameter '{name}'.")


def _mistyped(name: str, takes: str, value: Any) -> RestError:
    return RestError(INVALID, f"{name} takes {takes}, not {_shown(value)}")


def _shown(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


Answer = Callable[[TraceClient, Arguments], Message]

_MAX_RESULTS: Final = 500  # of MLflow's server
_DEFAULT_RESULTS: Final = 100
_MAX_TRACES: Final = 500
_MAX_INFOS: Final = 10_000
_MAX_EXPERIMENTS: Final = 50_000
_DEFAULT_EXPERIMENTS: Final = 1000
# MLflow's own default experiment, which its client asks for when it was told of none, and ours.
_THEIR_DEFAULT_ID: Final = "0"
_THEIR_DEFAULT: Final = "Default"
_OUR_DEFAULT: Final = "default"
_DELETED_ONLY: Final = ("DELETED_ONLY", 2, "2")  # ViewType of service.proto


@dataclass(frozen=True, slots=True)
class Call:
    """A method and a path as Starlette writes it, and who answers."""

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
        """The one with this id, else with this name."""
        return self._by_id.get(given) or self.named(_THEIR_DEFAULT if given == _THEIR_DEFAULT_ID else given)

    def named(self, name: str) -> KnownExperiment | None:
        """The one with this name."""
        return self._by_name.get(name) or self._by_name.get(_OUR_DEFAULT if name == _THEIR_DEFAULT else name)

    def infos(self, traces: Iterable[Trace]) -> list[Message]:
        """Each trace's info."""
        return [info_message(trace.info, self._id(trace)) for trace in traces]

    def traces(self, traces: Iterable[Trace]) -> list[Message]:
        """Each trace with its spans."""
        return [trace_message(trace, self._id(trace)) for trace in traces]

    def _id(self, trace: Trace) -> str:
        return str(self._by_name[trace.info.experiment].id)


def search_traces(client: TraceClient, asked: Arguments) -> Message:
    """``SearchTracesV3``: a page of infos."""
    names = _names_at(asked.items("locations"), _Experiments(client))
    order_by = asked.texts("order_by")
    limit = asked.integer("max_results", _DEFAULT_RESULTS, _MAX_RESULTS)
    token = asked.text("page_token") or None
    # With no experiment to search the filter is read all the same, so that a wrong one is told.
    found = client.search_traces(names, asked.text("filter"), limit, order_by, token, include_spans=False)
    return _with_token({"traces": _Experiments(client).infos(found)}, found.token)


def get_trace_info(client: TraceClient, asked: Arguments) -> Message:
    """``GetTraceInfoV3``: a trace without its spans."""
    trace = _trace(client, asked.in_path("trace_id"), include_spans=False)
    return {"trace": {"trace_info": _Experiments(client).infos([trace])[0]}}


def get_trace(client: TraceClient, asked: Arguments) -> Message:
    """``GetTrace``: a trace with its spans, as many as there are yet."""
    trace = _trace(client, asked.required_text("trace_id"), include_spans=True)
    return {"trace": _Experiments(client).traces([trace])[0]}


def get_traces(client: TraceClient, asked: Arguments) -> Message:
    """``BatchGetTraces``: those of the traces that are there, with their spans."""
    found = client.get_traces(asked.required_texts("trace_ids", _MAX_TRACES))
    return {"traces": _Experiments(client).traces(found)}


def get_infos(client: TraceClient, asked: Arguments) -> Message:
    """``BatchGetTraceInfos``: those of the traces that are there, without spans."""
    ids = asked.required_texts("trace_ids", _MAX_INFOS)
    found = client.get_traces(ids, include_spans=False)
    return {"trace_infos": _Experiments(client).infos(found)}


def set_tag(client: TraceClient, asked: Arguments) -> Message:
    """``SetTraceTag``."""
    client.set_trace_tag(asked.in_path("trace_id"), asked.required_text("key"), asked.text("value") or "")
    return {}


def delete_tag(client: TraceClient, asked: Arguments) -> Message:
    """``DeleteTraceTag``."""
    client.delete_trace_tag(asked.in_path("trace_id"), asked.required_text("key"))
    return {}


def get_experiment(client: TraceClient, asked: Arguments) -> Message:
    """``GetExperiment``, by its id."""
    given = asked.required_text("experiment_id")
    return _experiment(_Experiments(client).find(given), f"no experiment has the id {given!r}")


def get_experiment_by_name(client: TraceClient, asked: Arguments) -> Message:
    """``GetExperimentByName``."""
    name = asked.required_text("experiment_name")
    return _experiment(_Experiments(client).named(name), f"no experiment is named {name!r}")


def search_experiments(client: TraceClient, asked: Arguments) -> Message:
    """``SearchExperiments``: those that are not deleted, as none ever is."""
    limit = asked.integer("max_results", _DEFAULT_EXPERIMENTS, _MAX_EXPERIMENTS)
    token = asked.text("page_token") or None
    found = client.search_experiments(asked.text("filter"), limit, asked.texts("order_by"), token)
    shown = [] if asked.is_one_of("view_type", _DELETED_ONLY) else found
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
    """Names of the experiments at these locations; one that is not there stays, and holds nothing."""
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
            "a location takes the form {'mlflow_experiment': {'experiment_id': '1'}}: no other is here",
        )
    return given


def _with_token(message: Message, token: str | None) -> Message:
    return message if token is None else message | {"next_page_token": token}


_TRACES: Final = "/api/3.0/mlflow/traces"
_TAGS: Final = ("/api/2.0/mlflow/traces/{trace_id}/tags", _TRACES + "/{trace_id}/tags")
_EXPERIMENTS: Final = "/api/2.0/mlflow/experiments"

CALLS: Final = (
    Call("POST", f"{_TRACES}/search", search_traces),
    Call("GET", f"{_TRACES}/get", get_trace),
    Call("GET", f"{_TRACES}/batchGet", get_traces),
    Call("POST", f"{_TRACES}/batchGetInfos", get_infos),
    Call("GET", _TRACES + "/{trace_id}", get_trace_info),
    *(Call("PATCH", path, set_tag) for path in _TAGS),
    *(Call("DELETE", path, delete_tag) for path in _TAGS),
    Call("GET", f"{_EXPERIMENTS}/get", get_experiment),
    Call("GET", f"{_EXPERIMENTS}/get-by-name", get_experiment_by_name),
    Call("POST", f"{_EXPERIMENTS}/search", search_experiments),
    Call("GET", f"{_EXPERIMENTS}/search", search_experiments),
)
"""Every call, in the order in which paths are tried."""
