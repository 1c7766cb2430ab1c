"""Text of anything, bounded: ``str`` and ``repr`` that end, can be encoded, and never raise.

The C code behind the ``repr`` of a list reads it while the ``__repr__`` of its items runs, which may change
it. So a container is first copied into one of our own, with texts for items that are not plain.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, UserDict, UserList, defaultdict, deque, namedtuple
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
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
    """Makes texts of at most about ``limit`` characters; one for all that belongs to one value."""

    __slots__ = ("_limit", "_nodes", "_open", "_seconds")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._nodes = _MAX_NODES
        self._seconds = FOREIGN_SECONDS
        self._open: set[int] = set()

    def text(self, value: object) -> str:
        """``str(value)``; a long one is cut, or else at least not made much longer than the limit."""
        kind: Any = type(value)
        try:
            if kind.__str__ is str.__str__:
                return str.__getitem__(cast("str", value), slice(0, self._limit + 1))
            if kind.__str__ is BaseException.__str__:
                args: Any = BaseException.args.__get__(value)  # type: ignore[attr-defined]
                return "" if not args else self.text(args[0]) if len(args) == 1 else self.shown(args)
            if kind.__str__ is not object.__str__ and not _is_int(kind):
                return str(self.call(str, value))
        except Exception:  # noqa: BLE001 - somebody else's __str__
            return self._printed(value, self._limit)
        return self._printed(value, self._limit)

    def shown(self, value: object, limit: int = MAX_REPR) -> str:
        """``repr(value)`` in at most ``limit`` characters."""
        return cut(self._printed(value, limit), limit)

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

    def _printed(self, value: object, limit: int) -> str:
        try:
            return repr(self._own(value, limit))
        except TimeoutError:
            return f"<{type(value).__name__} object>"
        except Exception:  # noqa: BLE001 - somebody else's __repr__
            return f"<{type(value).__name__} object, its repr failed>"

    def _own(self, value: object, limit: int) -> Any:
        """``value``, or what prints as it does."""
        kind: Any = type(value)
        if kind.__repr__ in _SLICED:
            return _SLICED[kind.__repr__].__getitem__(value, slice(0, limit + 1))
        if _is_int(kind):
            if int.bit_length(value) > _MAX_BITS:  # type: ignore[arg-type]
                raise ValueError(value)
            return value
        if id(value) in self._open or len(self._open) >= _MAX_DEPTH:
            return _Text("{...}" if kind is dict else "[...]")
        self._open.add(id(value))
        try:
            return self._opened(value, kind, limit)
        finally:
            self._open.discard(id(value))

    def _opened(self, value: Any, kind: Any, limit: int) -> Any:
        make = _MAKERS.get(kind)
        if make is not None:
            return make(self, value, limit)
        if kind.__repr__ is BaseException.__repr__:
            args = self._inner(BaseException.args.__get__(value), limit)  # type: ignore[attr-defined]
            return _Text(f"{kind.__name__}({', '.join(map(repr, args))})")
        if (fields := _fields_of(kind)) is not None:
            return _Text(f"{kind.__qualname__}({', '.join(self._named(value, fields, limit))})")
        return _Text(self.call(repr, value))

    def _inner(self, items: Iterable[Any], limit: int) -> list[Any]:
        """The first items, as ours."""
        own: list[Any] = []
        for item in items:
            if self._nodes <= 0:
                own.append(_MORE)
                break
            self._nodes -= 1
            own.append(self._item(item, limit))
        return own

    def _item(self, item: Any, limit: int) -> Any:
        return item if type(item) in _SCALARS else _Text(self._printed(item, limit))

    def _named(self, value: object, names: Iterable[str], limit: int) -> Iterator[str]:
        for name in names:
            yield f"{name}={self._item(object.__getattribute__(value, name), limit)!r}"

    def container(self, value: Any, limit: int) -> Any:
        """A builtin container as one of ours."""
        items = items_of(value, min(limit, self._nodes) + 1)
        if isinstance(value, dict):
            pairs = self._inner((part for pair in items for part in pair), limit)
            return _Text(
                "{" + ", ".join(f"{k!r}: {v!r}" for k, v in zip(*[iter(pairs)] * 2, strict=False)) + "}"
            )
        inside = self._inner(items, limit)
        if type(value) is tuple:
            return tuple(inside)
        shown = ", ".join(map(repr, inside))
        if not inside or type(value) in (list, deque, frozenset):
            return _Text(_FORMS[type(value)].format(shown) if inside else repr(type(value)()))
        return _Text(f"{{{shown}}}")

    def wrapped(self, value: Any, limit: int) -> Any:
        """A dict or list in another form, by its name."""
        kind = type(value)
        inner: Any = value.data if kind in (UserDict, UserList) else value
        if isinstance(inner, dict):
            shown: Any = self.container(inner, limit)
        elif kind is MappingProxyType:
            shown = self.container(dict(islice(inner.items(), self._nodes + 1)), limit)
        else:
            shown = self._inner(islice(inner, self._nodes + 1), limit)
        return shown if kind in (UserDict, UserList) else _Text(f"{kind.__name__}({shown!r})")

    def namespace(self, value: SimpleNamespace, limit: int) -> Any:
        """A namespace, by its attributes."""
        return _Text(f"namespace({', '.join(self._named(value, list(vars(value)), limit))})")

    def bound(self, value: Any, limit: int) -> Any:
        """A method or partial: by what is called, and the object."""
        if type(value) is partial:
            return _Text(f"functools.partial({self._item(value.func, limit)!r}, ...)")
        name = getattr(value.__func__, "__qualname__", "?")
        return _Text(f"<bound method {name} of {self._item(value.__self__, limit)!r}>")


_FORMS: Final[dict[Any, str]] = {list: "[{}]", deque: "deque([{}])", frozenset: "frozenset({{{}}})"}
_MAKERS: Final[dict[Any, Callable[[Printer, Any, int], Any]]] = {
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
    MethodType: Printer.bound,
    partial: Printer.bound,
}


def _is_int(kind: Any) -> bool:
    return issubclass(kind, int) and kind.__repr__ is int.__repr__


def _fields_of(kind: Any) -> list[str] | None:
    """What the ``repr`` shows that dataclasses, attrs, pydantic and named tuples give to a class."""
    method = kind.__repr__
    if issubclass(kind, tuple) and getattr(method, "__code__", None) is _NAMED_TUPLE.__code__:
        return list(kind._fields)
    if "__dataclass_fields__" in vars(kind) and hasattr(method, "__wrapped__"):
        return [name for name, field in kind.__dataclass_fields__.items() if field.repr]
    if "__pydantic_fields__" in vars(kind) and getattr(method, "__module__", "").startswith("pydantic."):
        return [name for name, field in kind.__pydantic_fields__.items() if field.repr]
    if (
        "__attrs_attrs__" in vars(kind)
        and "attrs generated" in getattr(method, "__code__", method).co_filename
    ):
        return [field.name for field in kind.__attrs_attrs__ if field.repr is True]
    return None
