"""What a traced callable offers besides being called: all that the original does."""

from __future__ import annotations

import abc
import copy
import functools
import inspect
import multiprocessing
import operator
import pickle
import re
import types
from collections.abc import Callable
from typing import Any

import celery
import httpx
import numpy as np
import pytest
from fastapi import Depends, FastAPI

from wherefrom import MemorySink, trace

from .test_decorator import only_span, sink

__all__ = ["sink"]


@trace
def double(x: int) -> int:
    return 2 * x


@trace
@functools.lru_cache
def cached(x: int) -> int:
    return 2 * x


@trace(name="shown")
@functools.singledispatch
def show(value: object) -> str:
    return "object"


@show.register
def _(value: int) -> str:
    return "int"


tripled = trace(functools.partial(operator.mul, 3), name="tripled", attributes={"by": 3})


class Scaled:
    """A callable with state, an operator and a method."""

    def __init__(self, by: int) -> None:
        self.by = by

    def __call__(self, x: int) -> int:
        return self.by * x

    def __or__(self, other: Scaled) -> Scaled:
        return Scaled(self.by * other.by)

    def __len__(self) -> int:
        return self.by

    def method(self, x: int) -> int:
        return self.by * x

    def more(self) -> int:
        return self.by + 1


class Service:
    """Methods under decorators of the standard library."""

    by = 2

    @trace
    @functools.lru_cache  # noqa: B019
    def cached(self, x: int) -> int:
        return self.by * x

    @trace
    @functools.singledispatchmethod
    def show(self, value: object) -> str:
        return "object"

    @show.register
    def _(self, value: int) -> str:
        return "int"

    def scale(self, by: int, x: int) -> int:
        return by * x

    tripled = trace(functools.partialmethod(scale, 3))
    scaled = trace(Scaled(4))
    length = trace(len)

    @trace
    @classmethod
    @functools.lru_cache
    def of_class(cls, x: int) -> int:
        return cls.by * x


def test_a_cache_can_be_read_and_cleared(sink: MemorySink) -> None:
    """Every call is recorded, also one that the cache answers."""
    assert [cached(1), cached(1)] == [2, 2]
    assert cached.cache_info().hits == 1
    cached.cache_clear()
    assert cached.cache_info().misses == 0
    assert cached.cache_parameters() == {"maxsize": 128, "typed": False}
    assert isinstance(cached, type(functools.lru_cache(len)))
    assert [kept.data.spans[0].outputs for kept in sink.traces] == [2, 2]


def test_singledispatch_keeps_its_registry(sink: MemorySink) -> None:
    """Implementations may be registered with the traced function."""
    assert [show(1), show("x")] == ["int", "object"]
    assert show.dispatch(int) is show.registry[int]
    assert {kept.info.name for kept in sink.traces} == {"shown"}


def plain_repr(value: object) -> str:
    """The ``repr`` without addresses: each worker of pytest-xdist must find the same ids."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


@pytest.mark.parametrize(
    ("call", "name", "inputs"),
    [
        (lambda service: service.cached(2), "cached", {"x": 2}),
        (lambda service: Service.cached(service, 2), "cached", {"x": 2}),
        (lambda service: service.show(2), None, None),
        (lambda service: service.tripled(2), "scale", {"x": 2}),
        (lambda service: service.scaled(2), "Scaled", {"x": 2}),
        (lambda service: service.length([2]), "len", {"obj": [2]}),
        (lambda service: service.of_class(2), "of_class", {"x": 2}),
        (lambda service: Service.of_class(2), "of_class", {"x": 2}),
    ],
)
def test_it_binds_to_an_instance_as_the_original_does(
    call: Callable[[Service], object], name: str | None, inputs: dict[str, object] | None, sink: MemorySink
) -> None:
    """Or does not bind: a callable object and a builtin get no ``self``."""
    assert call(Service()) in (4, "int", 6, 8, 1)
    span = only_span(sink)
    if name is not None:
        assert (span.name, span.inputs) == (name, inputs)


def test_a_bound_method_offers_what_the_function_does() -> None:
    """As without us."""
    service: Any = Service()
    assert service.cached.__self__ is service
    assert service.cached.cache_info() == Service.cached.cache_info()
    assert Service.of_class.cache_info().maxsize == 128


ORIGINALS: list[Callable[..., Any]] = [
    functools.partial(operator.mul, 3),
    Scaled(3),
    Scaled(3).method,
    functools.lru_cache(operator.neg),
    len,
    np.add,
    operator.itemgetter(0),
]


@pytest.mark.parametrize("original", ORIGINALS, ids=plain_repr)
def test_attributes_methods_and_type_are_those_of_the_original(original: Callable[..., Any]) -> None:
    """All of them, of whatever class it is."""
    traced = trace(original)
    for name in dir(original):
        if not name.startswith("__"):
            assert repr(getattr(traced, name)) == repr(getattr(original, name))
    assert isinstance(traced, type(original))
    assert repr(traced) == repr(original)
    assert dir(traced) == dir(original)
    assert traced.__doc__ == original.__doc__
    assert traced.__wrapped__ is original  # type: ignore[attr-defined]
    assert callable(traced)
    with pytest.raises(AttributeError):
        _ = traced.nothing  # type: ignore[attr-defined]


def test_operators_of_the_class_work() -> None:
    """Python looks them up on the class."""
    scaled: Any = trace(Scaled(3))
    assert (scaled | Scaled(2)).by == 6
    assert len(scaled) == 3
    assert trace(np.add)(1, 2) == 3
    assert trace(np.add).reduce([1, 2, 3]) == 6


def test_an_attribute_that_is_set_is_that_of_the_original(sink: MemorySink) -> None:
    """What decorates a traced callable may leave its mark; a builtin takes none, so the traced one does."""
    original = Scaled(3)
    traced = trace(original)
    traced.by = 5
    assert (original.by, traced(2)) == (5, 10)
    del traced.by
    assert not hasattr(original, "by")
    builtin: Any = trace(len)
    builtin.mark = 1
    assert builtin.mark == 1
    del builtin.mark
    assert not hasattr(builtin, "mark")


def test_attributes_of_a_function_are_kept() -> None:
    """What another decorator put there."""

    def task() -> None: ...

    task.delay = lambda: "queued"  # type: ignore[attr-defined]
    assert trace(task).delay() == "queued"  # type: ignore[attr-defined]


@pytest.mark.parametrize("again", [lambda item: pickle.loads(pickle.dumps(item)), copy.copy, copy.deepcopy])
@pytest.mark.parametrize("traced", [double, cached, show, Service.cached, Service().of_class], ids=plain_repr)
def test_what_a_module_names_is_pickled_by_name(traced: Any, again: Callable[[Any], Any]) -> None:
    """As functions are."""
    if not isinstance(traced, types.MethodType):
        assert again(traced) is traced
    elif again is not copy.deepcopy:
        assert again(traced) == traced


@pytest.mark.parametrize("again", [lambda item: pickle.loads(pickle.dumps(item)), copy.copy, copy.deepcopy])
@pytest.mark.parametrize("original", [tripled.__wrapped__, Scaled(3), Scaled(3).method])  # type: ignore[attr-defined]
def test_what_no_module_names_is_pickled_with_its_options(
    original: Any, again: Callable[[Any], Any], sink: MemorySink
) -> None:
    """The copy is traced as the original is."""
    assert again(trace(original, name="n", span_type="TOOL", attributes={"a": 1}, capture_io=False))(2) == 6
    span = only_span(sink)
    assert (span.name, span.span_type, span.attributes["a"], span.inputs) == ("n", "TOOL", 1, None)


def test_a_pool_of_processes_takes_traced_callables() -> None:
    """Functions by name, others by value."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(double, [1, 2]) == [2, 4]
        assert pool.map(tripled, [1, 2]) == [3, 6]
        assert pool.map(Service().cached, [1]) == [2]


def test_a_celery_task_stays_a_task(sink: MemorySink) -> None:
    """It can be sent, signed, bound and found; the call is recorded."""
    app = celery.Celery("tests", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.task_default_queue = "callables"  # the broker is one for the process

    @trace(name="traced")
    @app.task(name="add", bind=True)  # type: ignore[untyped-decorator]
    def add(self: Any, x: int, y: int) -> int:
        return x + y

    assert isinstance(add, celery.Task)
    assert (add.name, add.app) == ("add", app)
    assert add(1, 2) == 3
    assert only_span(sink).inputs == {"x": 1, "y": 2}
    assert add.apply((1, 2)).get() == 3
    assert add.delay(1, 2).id
    assert add.s(1, 2).task == "add"
    assert (add.s(1, 2) | add.s(3)).apply().get() == 6


def test_abstract_methods_and_marks_of_classmethods_stay() -> None:
    """Whatever is put on the descriptor or on what it wraps."""

    class Marked(classmethod):  # type: ignore[type-arg]
        pass

    def one(cls: type) -> int:
        return 1

    marked = Marked(one)
    marked.mark = "so"  # type: ignore[attr-defined]

    class Base(abc.ABC):  # noqa: B024
        one = trace(marked)
        two = trace(functools.partialmethod(abc.abstractmethod(lambda self: 1)))

    assert Base.__dict__["one"].mark == "so"
    assert isinstance(Base.__dict__["one"], Marked)
    assert Base.one() == 1
    assert Base.__abstractmethods__ == {"two"}


async def test_fastapi_takes_callable_objects_and_partials(sink: MemorySink) -> None:
    """As dependencies and as handlers, with their parameters; coroutines are awaited."""

    class Limit:
        async def __call__(self, limit: int = 3) -> int:
            return limit

    async def multiply(by: int, x: int) -> int:
        return by * x

    app = FastAPI()
    handler = trace(functools.partial(multiply, 3))
    app.get("/times")(handler)

    @app.get("/limit")
    def limit(value: int = Depends(trace(Limit()))) -> int:
        return value

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        assert (await client.get("/times?x=2")).json() == 6
        assert (await client.get("/limit?limit=7")).json() == 7
    assert [kept.data.spans[0].outputs for kept in sink.traces] == [6, 7]
    assert inspect.iscoroutinefunction(handler)
