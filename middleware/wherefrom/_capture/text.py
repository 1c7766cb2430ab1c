"""Text of anything, bounded: ``str`` and ``repr`` that end, can be encoded, and never raise.

The C code behind the ``repr`` of a list reads it while the ``__repr__`` of its items runs, which may change
it. So a container is first copied into one of our own, with texts for items that are not plain.
"""

from __future__ import annotations

from array import array
from collections import Counter, OrderedDict, UserDict, UserList, defaultdict, deque, namedtuple
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice, zip_longest
from time import perf_counter
from types import MappingProxyType, MethodType, SimpleNamespace
from typing import Any, Final, cast

ELLIPSIS = "..."
MAX_TEXT = 1_000_000
MAX_REPR = 1000

FOREIGN_SECONDS: Final = 0.01
"""When ``__repr__``, ``__str__`` and the like of one value have taken so long, no more of them are called."""

_MAX_NODES: Final = 5_000
_MAX_DEPTH: Final = 20
_MAX_BITS: Final = 14_300  # 4,300 digits, Python's own limit, which an app may lift
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
    kind = type(value)
    base = next(base for base in _ITERATORS if issubclass(kind, base))
    iterate = _ITERATORS[base]
    for _ in range(_TRIES - 1):
        try:
            return list(islice(iterate(value), most))
        except RuntimeError:  # it changed size
            continue
    return list(islice(iterate(value), most))


def size_of(value: Any) -> int:
    """How many items a builtin container has, without asking a subclass."""
    kind = type(value)
    base: Any = next(base for base in _ITERATORS if issubclass(kind, base))
    return int(base.__len__(value))


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


class _Text:
    """Stands for an item in a container of ours, and prints as it would."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


_MORE: Final = _Text(ELLIPSIS)
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
                return str(self.call(str, value))
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
        return repr(self._item(value))

    def _item(self, value: Any) -> Any:
        """``value``, or what prints as it does."""
        kind: Any = type(value)
        if kind in _SCALARS:
            self._left -= 4
            return value
        try:
            text = repr(self._own(value, kind))
        except TimeoutError:
            text = f"<{kind.__name__} object>"
        except Exception:  # noqa: BLE001 - somebody else's __repr__
            text = f"<{kind.__name__} object, its repr failed>"
        if not issubclass(kind, CONTAINERS):
            self._left -= len(text)
        return _Text(text)

    def _own(self, value: Any, kind: Any) -> Any:
        if kind.__repr__ in _SLICED:
            return _SLICED[kind.__repr__].__getitem__(value, slice(0, max(self._left, 0) + 1))
        if _is_int(kind):
            if int.bit_length(value) > _MAX_BITS:
                raise ValueError(value)
            return value
        if id(value) in self._open or len(self._open) >= _MAX_DEPTH:
            return _Text("{...}" if kind is dict else "[...]")
        self._open.add(id(value))
        try:
            return self._opened(value, kind)
        finally:
            self._open.discard(id(value))

    def _opened(self, value: Any, kind: Any) -> Any:
        make = _MAKERS.get(kind)
        if make is not None:
            return make(self, value)
        if kind.__repr__ is BaseException.__repr__:
            args = self._inner(BaseException.args.__get__(value))  # type: ignore[attr-defined]
            return _Text(f"{kind.__name__}({', '.join(map(repr, args))})")
        if (fields := _fields_of(kind)) is not None:
            return _Text(f"{kind.__qualname__}({', '.join(self._named(value, fields))})")
        return _Text(self.call(repr, value))

    def _room(self) -> int:
        return max(min(self._left, self._nodes), 0) + 1

    def _inner(self, items: Iterable[Any]) -> list[Any]:
        """The first items, as ours."""
        own: list[Any] = []
        for item in items:
            if self._nodes <= 0 or self._left < 0:
                own.append(_MORE)
                break
            self._nodes -= 1
            own.append(self._item(item))
        return own

    def _named(self, value: object, names: Iterable[str]) -> Iterator[str]:
        for name in names:
            yield f"{name}={self._item(object.__getattribute__(value, name))!r}"

    def container(self, value: Any) -> Any:
        """A builtin container as one of ours."""
        items = items_of(value, self._room())
        if isinstance(value, dict):
            parts = self._inner(part for pair in items for part in pair)
            pairs = zip_longest(parts[::2], parts[1::2], fillvalue=_MORE)
            return _Text("{" + ", ".join(f"{key!r}: {item!r}" for key, item in pairs) + "}")
        inside = self._inner(items)
        if type(value) is tuple:
            return tuple(inside)
        shown = ", ".join(map(repr, inside))
        return _Text(_FORMS[type(value)].format(shown) if inside else repr(type(value)()))

    def wrapped(self, value: Any) -> Any:
        """A dict or list in another form, by its name."""
        kind = type(value)
        inner: Any = value.data if kind in (UserDict, UserList) else value
        if isinstance(inner, dict):
            shown: Any = self.container(inner)
        elif kind is MappingProxyType:
            shown = self.container(dict(islice(inner.items(), self._room())))
        else:
            shown = self._inner(islice(inner, self._room()))
        return shown if kind in (UserDict, UserList) else _Text(f"{kind.__name__}({shown!r})")

    def namespace(self, value: SimpleNamespace) -> Any:
        """A namespace, by its attributes."""
        return _Text(f"namespace({', '.join(self._named(value, islice(vars(value), self._room())))})")

    def numbers(self, value: array[Any]) -> Any:
        """An array of the standard library."""
        shown = self._inner(value[: self._room()])
        return _Text(f"array({value.typecode!r}, {shown!r})" if shown else f"array({value.typecode!r})")

    def bound(self, value: Any) -> Any:
        """A method or partial: by what is called, and the object."""
        if type(value) is partial:
            return _Text(f"functools.partial({self._item(value.func)!r}, ...)")
        name = getattr(value.__func__, "__qualname__", "?")
        return _Text(f"<bound method {name} of {self._item(value.__self__)!r}>")


_FORMS: Final[dict[Any, str]] = {
    list: "[{}]",
    set: "{{{}}}",
    deque: "deque([{}])",
    frozenset: "frozenset({{{}}})",
}
_MAKERS: Final[dict[Any, Callable[[Printer, Any], Any]]] = {
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
