"""Text of anything, bounded: ``str`` and ``repr`` that end, can be encoded, and never raise.

The C code behind the ``repr`` of a list reads it while the ``__repr__`` of its items runs, which may change
it. So a container is first copied into one of our own, with texts for items that are not plain.
"""

from __future__ import annotations

from array import array
from collections import Counter, OrderedDict, UserDict, UserList, defaultdict, deque, namedtuple
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from functools import partial
from itertools import islice
from types import MappingProxyType, MethodType, SimpleNamespace
from typing import Any, Final, cast

from .._clock import perf_counter
from .secrets import redactor

ELLIPSIS = "..."
MAX_TEXT = 1_000_000
MAX_REPR = 1000

FOREIGN_SECONDS: Final = 0.01
"""When ``__repr__``, ``__str__`` and the like of one value have taken so long, no more of them are called."""

_MAX_NODES: Final = 5_000
# What a container or an object costs, and a call of its method, by the time that it takes.
_OPEN_NODES, _CALL_NODES = 5, 60
_MAX_DEPTH: Final = 20
_MAX_BITS: Final = 14_300  # 4,300 digits, Python's own limit, which an app may lift
_MAX_DECIMAL: Final = 2_000  # bytes, as of so long an integer
_PIECE: Final = 65_536
_TRIES: Final = 3
_ITEMS: Final = "items"


def cut(text: str, limit: int) -> str:
    """``text`` in at most ``limit`` characters, ending in ``...`` where something was left out."""
    if len(text) <= limit:
        return text
    return text[: max(limit - len(ELLIPSIS), 0)] + ELLIPSIS[:limit]


def clean_text(value: object, limit: int = MAX_TEXT) -> str:
    """``str(value)`` in at most ``limit`` characters, which can be encoded; never raises."""
    text = value if type(value) is str else Printer(limit).text(value)
    return encodable(text if len(text) <= limit else cut(text, limit))


def redacted_text(value: object, limit: int = MAX_TEXT) -> str:
    """``clean_text(value)`` without the secrets in it. Not for ids, which may look like one."""
    text = value if type(value) is str else Printer(limit).text(value)
    # Cut before it is searched, which takes longer, and again: what stands for a secret may be longer.
    text = redactor().text(text if len(text) <= limit else cut(text, limit))
    return encodable(text if len(text) <= limit else cut(text, limit))


def safe_repr(value: object) -> str:
    """``repr(value)`` in at most 1,000 characters; never raises."""
    return Printer(MAX_REPR).shown(value)


def encodable(text: str) -> str:
    """``text`` with question marks for lone surrogates."""
    return text if is_encodable(text) else text.encode("utf-8", "replace").decode()


def is_encodable(text: str) -> bool:
    """Whether ``text`` is without lone surrogates."""
    if text.isascii():
        return True
    try:
        for start in range(0, len(text), _PIECE):  # in one piece it would take up to four bytes a character
            text[start : start + _PIECE].encode()
    except UnicodeEncodeError:
        return False
    return True


def items_of(value: Any, most: int) -> list[Any]:
    """The first items of a builtin container, of a ``dict`` its pairs; methods of a subclass are not called.

    Raises:
        RuntimeError: another thread changes its size again and again.
    """
    iterate = _ITERATORS[_base_of(type(value))]
    for _ in range(_TRIES - 1):
        try:
            return list(islice(iterate(value), most))
        except RuntimeError:  # it changed size
            continue
    return list(islice(iterate(value), most))


def size_of(value: Any) -> int:
    """How many items a builtin container has, without asking a subclass."""
    return int(_base_of(type(value)).__len__(value))


def _base_of(kind: Any) -> Any:
    return kind if kind in _ITERATORS else next(base for base in _ITERATORS if issubclass(kind, base))


def _pairs(value: dict[Any, Any]) -> Iterator[Any]:
    return iter(dict.items(value))


_ITERATORS: Final[dict[Any, Callable[[Any], Iterator[Any]]]] = {
    dict: _pairs,
    list: list.__iter__,
    tuple: tuple.__iter__,
    set: set.__iter__,
    frozenset: frozenset.__iter__,
    deque: deque.__iter__,
}
CONTAINERS: Final = tuple(_ITERATORS)


_SLICED: Final[dict[Any, Any]] = {kind.__repr__: kind for kind in (str, bytes, bytearray)}
_NAMED_TUPLE: Final[Any] = namedtuple("_NAMED_TUPLE", "").__repr__  # noqa: PYI024
_SCALARS: Final = frozenset({bool, float, type(None), type(Ellipsis)})


class Printer:
    """Makes texts of little more than ``limit`` characters; one for all that belongs to one value."""

    __slots__ = ("_left", "_limit", "_nodes", "_open", "_seconds")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._left = limit
        self._nodes = _MAX_NODES
        self._seconds = FOREIGN_SECONDS
        self._open: set[int] = set()

    def text(self, value: object) -> str:
        """``str(value)``, which may be a little longer than the limit, as a sign of what is left out."""
        kind: Any = type(value)
        try:
            if kind.__str__ is str.__str__:
                return str.__getitem__(cast("str", value), slice(0, self._limit + 1))
            if kind.__str__ is BaseException.__str__:
                return self._message(value)
            if _is_model(kind.__str__):
                self._left = self._limit
                return " ".join(self._named(value, _fields_of(kind) or ()))
            if kind is MappingProxyType:
                value = dict(islice(cast("Any", value).items(), self._room()))
                kind = dict
            if kind.__str__ is not object.__str__ and not _is_int(kind):
                return _decimal(value) if kind is Decimal else str(self.call(str, value))
        except Exception:  # noqa: BLE001 - somebody else's __str__
            return self._printed(value)
        return self._printed(value)

    def _message(self, error: object) -> str:
        """What ``str`` says of an exception that has no ``__str__`` of its own."""
        args: Any = BaseException.args.__get__(error)  # type: ignore[attr-defined]
        if len(args) == 1:
            return self.text(args[0])
        return self._printed(args) if args else ""

    def shown(self, value: object) -> str:
        """``repr(value)`` in at most 1,000 characters."""
        return cut(self._printed(value, MAX_REPR), MAX_REPR)

    def call(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """What somebody else's code returns.

        Raises:
            TimeoutError: it took too long already.
        """
        if self._seconds <= 0:
            raise TimeoutError
        started = perf_counter()
        try:
            return function(*args, **options)
        finally:
            self._seconds -= perf_counter() - started

    def _printed(self, value: object, limit: int | None = None) -> str:
        self._left = self._limit if limit is None else limit
        return self._item(value)

    def _item(self, value: Any) -> str:
        """What ``repr`` says of ``value``, or the beginning of it."""
        kind: Any = type(value)
        if kind in _SCALARS or (kind is int and value.bit_length() <= _MAX_BITS):
            text = repr(value)
            self._left -= len(text)
            return text
        try:
            text = self._own(value, kind)
        except TimeoutError:
            text = f"<{kind.__name__} object>"
        except Exception:  # noqa: BLE001 - somebody else's __repr__
            text = f"<{kind.__name__} object, its repr failed>"
        self._left -= 2 if issubclass(kind, CONTAINERS) else len(text)
        return text

    def _own(self, value: Any, kind: Any) -> str:
        if kind.__repr__ in _SLICED:
            return repr(_SLICED[kind.__repr__].__getitem__(value, slice(0, max(self._left, 0) + 1)))
        if _is_int(kind):
            if int.bit_length(value) > _MAX_BITS:
                raise ValueError(value)
            return repr(value)
        if kind is Decimal:
            return f"Decimal('{_decimal(value)}')"
        if id(value) in self._open or len(self._open) >= _MAX_DEPTH:
            return "{...}" if kind is dict else "[...]"
        self._nodes -= _OPEN_NODES
        self._open.add(id(value))
        try:
            return self._opened(value, kind)
        finally:
            self._open.discard(id(value))

    def _opened(self, value: Any, kind: Any) -> str:
        make = _MAKERS.get(kind)
        if make is not None:
            return make(self, value)
        if kind.__repr__ is BaseException.__repr__:
            args = BaseException.args.__get__(value)  # type: ignore[attr-defined]
            return f"{kind.__name__}({self._inner(args)})"
        if (fields := _fields_of(kind)) is not None:
            return f"{kind.__qualname__}({', '.join(self._named(value, fields))})"
        self._nodes -= _CALL_NODES
        return str(self.call(repr, value))

    def _room(self) -> int:
        return max(min(self._left, self._nodes), 0) + 1

    def _texts(self, items: Iterable[Any]) -> Iterator[str]:
        for item in items:
            if self._nodes <= 0 or self._left < 0:
                yield ELLIPSIS
                break
            self._nodes -= 1
            yield self._item(item)

    def _inner(self, items: Iterable[Any]) -> str:
        """The first items."""
        return ", ".join(self._texts(items))

    def _named(self, value: object, names: Iterable[str]) -> Iterator[str]:
        for name in names:
            yield f"{name}={self._item(object.__getattribute__(value, name))}"

    def container(self, value: Any) -> str:
        """A builtin container."""
        items = items_of(value, self._room())
        if isinstance(value, dict):
            texts = self._texts(part for pair in items for part in pair)
            return "{" + ", ".join(f"{key}: {next(texts, ELLIPSIS)}" for key in texts) + "}"
        kind = type(value)
        inside = self._inner(items)
        if kind is tuple and len(items) == 1:
            return f"({inside},)"
        return _FORMS[kind].format(inside) if inside else repr(kind())

    def wrapped(self, value: Any) -> str:
        """A dict or list in another form, by its name."""
        kind = type(value)
        inner: Any = value.data if kind in (UserDict, UserList) else value
        if isinstance(inner, dict):
            shown = self.container(inner)
        elif kind is MappingProxyType:
            shown = self.container(dict(islice(inner.items(), self._room())))
        else:
            shown = f"[{self._inner(islice(inner, self._room()))}]"
        return shown if kind in (UserDict, UserList) else f"{kind.__name__}({shown})"

    def namespace(self, value: SimpleNamespace) -> str:
        """A namespace, by its attributes."""
        return f"namespace({', '.join(self._named(value, islice(vars(value), self._room())))})"

    def numbers(self, value: array[Any]) -> str:
        """An array of the standard library."""
        shown = self._inner(value[: self._room()])
        return f"array({value.typecode!r}, [{shown}])" if shown else f"array({value.typecode!r})"

    def bound(self, value: Any) -> str:
        """A method or partial: by what is called, and the object."""
        if type(value) is partial:
            return f"functools.partial({self._item(value.func)}, ...)"
        name = getattr(value.__func__, "__qualname__", "?")
        return f"<bound method {name} of {self._item(value.__self__)}>"


_FORMS: Final[dict[Any, str]] = {
    list: "[{}]",
    tuple: "({})",
    set: "{{{}}}",
    deque: "deque([{}])",
    frozenset: "frozenset({{{}}})",
}
_MAKERS: Final[dict[Any, Callable[[Printer, Any], str]]] = {
    **dict.fromkeys(CONTAINERS, Printer.container),
    **dict.fromkeys(
        (
            OrderedDict,
            defaultdict,
            Counter,
            UserDict,
            UserList,
            MappingProxyType,
            type({}.keys()),
            type({}.values()),
            type({}.items()),
        ),
        Printer.wrapped,
    ),
    SimpleNamespace: Printer.namespace,
    array: Printer.numbers,
    MethodType: Printer.bound,
    partial: Printer.bound,
}


def _is_int(kind: Any) -> bool:
    return issubclass(kind, int) and kind.__repr__ is int.__repr__


def _decimal(value: Any) -> str:
    if value.__sizeof__() > _MAX_DECIMAL:
        raise ValueError
    return str(value)


def _is_model(method: Any) -> bool:
    return getattr(method, "__module__", None) == "pydantic.main"


def _fields_of(kind: Any) -> list[str] | None:
    """What the ``repr`` shows that dataclasses, attrs, pydantic and named tuples give to a class."""
    method = kind.__repr__
    if issubclass(kind, tuple) and getattr(method, "__code__", None) is _NAMED_TUPLE.__code__:
        return list(kind._fields)
    if "__dataclass_fields__" in vars(kind) and hasattr(method, "__wrapped__"):
        return [name for name, field in kind.__dataclass_fields__.items() if field.repr]
    if _is_model(method):
        return [name for name, field in kind.__pydantic_fields__.items() if field.repr]
    if (
        "__attrs_attrs__" in vars(kind)
        and "attrs generated" in getattr(method, "__code__", method).co_filename
    ):
        return [field.name for field in kind.__attrs_attrs__ if field.repr is True]
    return None
