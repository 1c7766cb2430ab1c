"""Values from outside walked into plain JSON data of our own, under one budget of nodes, text and depth.

What is cut says so. Text ends in ``...``, a list in ``"... 12 more"``, a dict in ``"...": "12 more"``. What
is nested too deep is ``"<dict of 3, nested too deep>"``, what contains itself
``"<circular: list 2 levels up>"``, and what comes again when the budget has no room for it
``"<dict of 3, shown before>"``. A large array or byte string, a tensor, frame or image is a dict with
``type``, ``shape``, ``dtype`` and ``first``. Their libraries are not imported: types are recognized by their
public attributes.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache, partial
from inspect import signature
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID

from .arrays import (
    FIRST,
    first_items,
    head_of_frame,
    is_array,
    is_frame,
    is_image,
    is_light,
    is_tensor,
    items_of_array,
    parts_of_image,
)
from .secrets import REDACTED, Redactor
from .text import CONTAINERS, ELLIPSIS, MAX_TEXT, Printer, cut, encodable, items_of, size_of

MAX_NODES: Final = 5_000
MAX_DEPTH: Final = 128
MAX_ARRAY: Final = 1_000

LEAST_INT, MOST_INT = -(1 << 63), (1 << 64) - 1  # what orjson writes
_LEAVES: Final = frozenset({int, float, bool, type(None)})
# Keys of other types become text, which may be the name of a secret.
_NAME_KINDS: Final = _LEAVES | {str}
_PLAIN: Final = frozenset({dict, list})
_MAX_INNOCENT: Final = 12  # characters: a secret without a name is longer
_SHORT_KEY: Final = 16
_FEW: Final = 32
# What a text counts that is searched for secrets, and each byte of one with "=" or ":", which takes longer.
_SEARCH_NODES, _PAIRS_WEIGHT = 4, 6
_PIECE: Final = 65_536
_MAX_KEY: Final = 250
_MAX_BYTES: Final = 1_000
# What a value costs besides one node for each item, by the time and memory that it takes.
_CONTAINER_NODES, _TEXT_NODES, _OPAQUE_NODES, _MODEL_NODES = 5, 5, 15, 35
_FRAME_NODES: Final = 400
_SMALL_NODES, _SMALL_SIZE = 1_000, 50_000
_TEXT_LIKE: Final = (date, time, timedelta, Decimal, PurePath, UUID)
_SHORT_TEXT: Final = frozenset({datetime, date, time, timedelta, UUID})
_KEYS: Final = {None: "null", True: "true", False: "false"}

_Handler = Callable[["Walk", Any, int], Any]


class Walk:
    """The walk of one value. ``nodes`` and ``size`` (bytes of text) are what it may still keep.

    ``redactor`` leaves out secrets. With ``is_json`` a float that is infinite or not a number is ``None``, as
    in JSON.
    """

    __slots__ = ("_is_json", "_printer", "_redactor", "_seen", "nodes", "size")

    def __init__(
        self, nodes: int, size: int, *, is_json: bool = True, redactor: Redactor | None = None
    ) -> None:
        self._is_json = is_json
        self._redactor = redactor
        self.nodes = nodes
        self.size = size
        self._seen: dict[int, Any] = {}
        self._printer: Printer | None = None

    def value(self, value: Any, depth: int = 0) -> Any:
        """``value`` as plain data; never raises."""
        kind = type(value)
        if kind is str:
            return self._text(value)
        if value is None or kind is bool:
            return value
        if kind is int:
            return value if LEAST_INT <= value <= MOST_INT else self.text_like(value, depth)
        if kind is float:
            return value if math.isfinite(value) else self._odd(value)
        return self._once(value, kind, depth)

    def _odd(self, value: float) -> float | None:
        return None if self._is_json else value

    @property
    def printer(self) -> Printer:
        """What makes text of what JSON has no form for."""
        if self._printer is None:
            self._printer = Printer(MAX_TEXT)
        return self._printer

    def _text(self, text: str) -> str:
        left = max(self.size, len(ELLIPSIS))
        kept, size = self._fitted(text, left)
        if self._redactor is not None and (len(kept) > _MAX_INNOCENT or not _is_innocent(kept)):
            self.nodes -= _SEARCH_NODES + len(kept) // 500
            if "=" in kept or ":" in kept:
                weight = _PAIRS_WEIGHT if kept.isascii() else 2 * _PAIRS_WEIGHT
                kept, size = self._fitted(kept, max(left // weight, len(ELLIPSIS)))
                size *= weight
            kept = self._redactor.text(kept)
        self.size -= size
        return kept

    def _fitted(self, text: str, most: int) -> tuple[str, int]:
        """As much of a text as fits into so many bytes, and how many it takes."""
        if text.isascii():
            kept = cut(text, most)
            return kept, len(kept)
        self.nodes -= 1
        if len(text) <= min(most // 4, _PIECE):
            try:
                return text, len(text.encode())
            except UnicodeEncodeError:
                self.nodes -= _TEXT_NODES
        count, size = _fitting(text, most)
        if count < len(text):
            text = text[: max(count - len(ELLIPSIS), 0)] + ELLIPSIS
        return encodable(text), size

    def _key(self, key: Any) -> str:
        kind = type(key)
        if kind is not str:
            if key is None or kind is bool:
                return _KEYS[key]
            if kind is int and LEAST_INT <= key <= MOST_INT:
                self.nodes -= 1
                return self._text(repr(key))
            self.nodes -= _TEXT_NODES if issubclass(kind, _TEXT_LIKE) else _OPAQUE_NODES
            plain = self._once(key, kind, MAX_DEPTH - 1) if issubclass(kind, (Enum, str)) else None
            key = plain if type(plain) is str else self._str(key)
        return self._text(cut(key, _MAX_KEY)) or ELLIPSIS if key else ""

    def _once(self, value: Any, kind: Any, depth: int) -> Any:
        """What is not a scalar: walked where it is met first."""
        key = id(value)
        known = self._seen.get(key)
        if known is not None:
            return self._again(known, value, kind, depth)
        if depth >= MAX_DEPTH:
            return _described(value, "nested too deep")
        nodes, size = self.nodes, self.size
        self._seen[key] = depth + 1
        try:
            kept = (_HANDLERS.get(kind) or _handler(kind))(self, value, depth + 1)
        except RecursionError:
            kept = _described(value, "nested too deep")
        except Exception:  # noqa: BLE001 - somebody else's object, or one that another thread changes
            kept = self.opaque(value, depth)
        # The value too, or another one might get its id.
        self._seen[key] = value, kept, nodes - self.nodes, size - self.size
        return kept

    def _again(self, known: Any, value: Any, kind: Any, depth: int) -> Any:
        if type(known) is int:
            levels = depth + 1 - known
            return f"<circular: {kind.__name__} {levels} level{'s' * (levels > 1)} up>"
        _, kept, nodes, size = known
        if nodes > self.nodes or size > self.size:
            return _described(value, "shown before")
        self.nodes -= nodes
        self.size -= size
        return kept

    def mapping(self, value: Any, depth: int) -> Any:
        """A ``dict``, whatever its methods do."""
        if type(value) is dict and len(value) <= self.nodes:
            try:
                pairs = list(value.items())
                return self._dict(pairs, len(pairs), depth)
            except RuntimeError:  # another thread changed its size
                pass
        self.nodes -= _CONTAINER_NODES
        return self._dict(items_of(value, max(self.nodes, 0)), size_of(value), depth)

    def _dict(self, pairs: Iterable[tuple[Any, Any]], total: int, depth: int) -> dict[str, Any]:
        # Scalars are handled in the loop, and what is left counted in locals: most of the time goes here.
        kept: dict[str, Any] = {}
        hides = self._hider(pairs, total)
        hooked = self._redactor.hooked if self._redactor is not None and self._redactor.hook else None
        nodes, size = self.nodes - _CONTAINER_NODES, self.size
        done = 0
        for key, item in pairs:
            if nodes <= 0 or size <= 0:
                break
            nodes -= 1
            done += 1
            if type(key) is str and len(key) <= _SHORT_KEY and key.isascii():
                size -= len(key)
            else:
                self.nodes, self.size = nodes, size
                key = self._key(key)  # noqa: PLW2901
                nodes, size = self.nodes, self.size
            kind = type(item)
            if hides is not None and hides(key) and not _says_nothing(key, item):
                kept[key] = REDACTED
            elif kind is str and len(item) <= _MAX_INNOCENT and _is_innocent(item) and len(item) <= size:
                size -= len(item)
                kept[key] = item
            elif item is None or kind is bool or (kind is int and LEAST_INT <= item <= MOST_INT):
                kept[key] = item
            elif kind is float:
                kept[key] = item if item - item == 0 else self._odd(item)  # infinite, or not a number
            else:
                self.nodes, self.size = nodes, size
                kept[key] = self._once(item, kind, depth) if kind in _PLAIN else self.value(item, depth)
                nodes, size = self.nodes, self.size
            if hooked is not None:
                kept[key] = hooked(key, kept[key])
        if done < total:
            kept[ELLIPSIS] = f"{total - done} more"
        self.nodes, self.size = nodes, size
        return kept

    def _hider(self, pairs: Iterable[tuple[Any, Any]], total: int) -> Callable[[str], bool] | None:
        """What tells which names are secret, where one may be."""
        if self._redactor is None:
            return None
        if total > _FEW and type(pairs) is list:
            kinds = {type(key) for key, _ in pairs}
            if kinds <= _NAME_KINDS and not self._redactor.hides_some(
                key for key, _ in pairs if type(key) is str
            ):
                return None
            self.nodes -= min(2 * total, self.nodes // 2)
        return self._redactor.hides

    def sequence(self, value: Any, depth: int) -> Any:
        """A list, tuple, set or deque, whatever its methods do."""
        if type(value) is list and len(value) <= self.nodes:
            items = [*value]
            if len(items) > FIRST and type(items[0]) is float and _are_finite(items):
                self.nodes -= len(items)
                return items
            return self._list(items, len(items), depth)
        return self._list(items_of(value, max(self.nodes, 0)), size_of(value), depth)

    def _list(self, items: Iterable[Any], total: int, depth: int) -> list[Any]:
        kept: list[Any] = []
        nodes, size = self.nodes - _CONTAINER_NODES, self.size
        done = 0
        for item in items:
            if nodes <= 0 or size <= 0:
                break
            nodes -= 1
            done += 1
            kind = type(item)
            if kind is str and len(item) <= _MAX_INNOCENT and _is_innocent(item) and len(item) <= size:
                size -= len(item)
                kept.append(item)
            elif item is None or kind is bool or (kind is int and LEAST_INT <= item <= MOST_INT):
                kept.append(item)
            elif kind is float:
                kept.append(item if item - item == 0 else self._odd(item))
            else:
                self.nodes, self.size = nodes, size
                kept.append(self._once(item, kind, depth) if kind in _PLAIN else self.value(item, depth))
                nodes, size = self.nodes, self.size
        if self._redactor is not None and self._redactor.hook is not None:
            kept = [self._redactor.hooked("", item) for item in kept]
        if done < total:
            kept.append(f"{ELLIPSIS} {total - done} more")
        self.nodes, self.size = nodes, size
        return kept

    def opaque(self, value: Any, _depth: int) -> str:
        """What JSON has no form for: by its ``repr``."""
        kind = type(value)
        if issubclass(kind, CONTAINERS):
            return _described(value, "changed while it was read")
        self.nodes -= _OPAQUE_NODES
        return self._text(self.printer.shown(value))

    def text_like(self, value: Any, _depth: int) -> str:
        """Dates, times, decimals, paths: by their ``str``, as MLflow does."""
        self.nodes -= _TEXT_NODES
        return self._text(self._str(value))

    def _str(self, value: Any) -> str:
        return str(value) if type(value) in _SHORT_TEXT else self.printer.text(value)

    def string(self, value: Any, _depth: int) -> str:
        """A ``str`` that is more than that."""
        self.nodes -= _TEXT_NODES
        left = max(self.size, len(ELLIPSIS))
        return self._text(cut(str.__getitem__(value, slice(0, left + 1)), left))

    def integer(self, value: Any, depth: int) -> Any:
        """An ``int`` that is more than that."""
        self.nodes -= _TEXT_NODES
        return self.value(int.__add__(value, 0), depth)

    def float(self, value: Any, depth: int) -> Any:
        """A ``float`` that is more than that."""
        self.nodes -= _TEXT_NODES
        return self.value(float.__pos__(value), depth)

    def enum(self, value: Any, depth: int) -> Any:
        """A member of an enum: by its value."""
        return self.value(object.__getattribute__(value, "_value_"), depth)

    def bytes(self, value: Any, _depth: int) -> Any:
        """Bytes: short ones by their ``repr``."""
        size = memoryview(value).nbytes
        if size <= _MAX_BYTES and type(value) is not memoryview:
            self.nodes -= _TEXT_NODES + size // 50
            return self._text(self.printer.shown(value))
        first = bytes(memoryview(value)[:FIRST])
        return self._form(value, [size], None, repr(first))

    def dataclass(self, value: Any, depth: int) -> Any:
        """A dataclass: by its public attributes."""
        try:
            fields = object.__getattribute__(value, "__dict__")
            pairs = items_of(fields, max(self.nodes, 0))
        except AttributeError:  # slots
            names = [name for name in type(value).__dataclass_fields__ if hasattr(type(value), name)]
            pairs = [(name, object.__getattribute__(value, name)) for name in names]
        self.nodes -= _CONTAINER_NODES
        public = [pair for pair in pairs if not pair[0].startswith("_")]
        return self._dict(public, len(public), depth)

    def model(self, value: Any, depth: int) -> Any:
        """A pydantic model, or what looks like one: as it dumps itself, or by its fields when it is large.

        Its small fields are still dumped by itself, as its serializers and excluded fields want.
        """
        kind = type(value)
        fields = getattr(kind, "__pydantic_fields__", None)
        if fields is None:
            return self.value(self._dumped(value, depth), depth)
        is_small = self._is_small(value)
        if is_small:
            try:
                return self.value(self._dumped(value, depth), depth)
            except Exception:  # noqa: BLE001 - one field without a JSON form must not affect the others
                return self._fields(value, fields, depth, is_small=True)
        return self._fields(value, fields, depth, is_small=False)

    def _fields(self, value: Any, fields: Any, depth: int, *, is_small: bool) -> Any:
        inner = object.__getattribute__(value, "__dict__")
        extra = object.__getattribute__(value, "__pydantic_extra__") or {}
        if _serializes_itself(type(value)):
            return self.opaque(value, depth) if is_small else _described(value, "too large")
        small = [name for name, item in items_of(inner, _SMALL_NODES) if self._is_small(item)]
        kept: dict[str, Any] = {}
        for names in [{name} for name in small] if is_small else [set(small)]:
            try:
                kept |= self._dumped(value, depth, include=names)
            except Exception:  # noqa: BLE001 - walked below
                small = [name for name in small if name not in names]
        for name, item in items_of(inner, _SMALL_NODES) + items_of(extra, _SMALL_NODES):
            if name not in small and not (name in fields and fields[name].exclude):
                custom = name in fields and _has_serializer(fields[name])
                kept[name] = _described(item, "too large") if custom else item
        return self._dict(kept.items(), len(kept), depth)

    def _dumped(self, value: Any, depth: int, **options: Any) -> Any:
        self.nodes -= _MODEL_NODES
        kind: Any = type(value)
        if _takes_fallback(kind):  # for values that pydantic cannot serialize, such as arrays
            options["fallback"] = partial(self.value, depth=depth)
        return self.printer.call(value.model_dump, mode="json", warnings=False, **options)

    def _is_small(self, value: Any) -> bool:
        """Whether a value has few nodes and little text, looked at until it has not."""
        nodes, size, waiting = 0, 0, [value]
        most = min(_SMALL_NODES, self.nodes)
        while waiting and nodes <= most and size <= _SMALL_SIZE:
            item = waiting.pop()
            kind = type(item)
            nodes += 1
            if kind in _LEAVES:
                continue
            if kind in (str, bytes, bytearray):
                size += len(item)
            elif issubclass(kind, dict):
                waiting += [part for pair in items_of(item, _SMALL_NODES - nodes + 1) for part in pair]
            elif issubclass(kind, CONTAINERS):
                waiting += items_of(item, _SMALL_NODES - nodes + 1)
            elif _is_model(kind) or hasattr(kind, "__dataclass_fields__"):
                waiting += list(getattr(item, "__dict__", {}).values()) + list(
                    (getattr(item, "__pydantic_extra__", None) or {}).values()
                )
            elif is_array(kind):
                nodes += math.prod(item.shape)
        self.nodes -= nodes if nodes <= most else most // 2
        return not waiting and nodes <= most and size <= _SMALL_SIZE

    def array(self, value: Any, depth: int) -> Any:
        """Of NumPy, pandas and others: small ones as lists; never copied or moved as a whole."""
        shape = self._shape(value)
        if math.prod(shape) <= min(MAX_ARRAY, max(self.nodes, 1)) and is_light(value):
            plain = self.printer.call(items_of_array, value)
            # A number that Python has no type for is its own item; dates are better as their own text.
            return self.opaque(value, depth) if type(plain) is type(value) else self.value(plain, depth)
        return self._large_array(value, shape, depth)

    def tensor(self, value: Any, depth: int) -> Any:
        """Of torch and TensorFlow: never a list, because the values may be on another device."""
        return self._large_array(value, self._shape(value), depth)

    def _large_array(self, value: Any, shape: list[int], depth: int) -> Any:
        try:
            first = self.value(self.printer.call(first_items, value, shape), depth)
        except Exception:  # noqa: BLE001 - sparse, without a device, or of an unknown kind
            first = None
        return self._form(value, shape, str(value.dtype), first)

    def _shape(self, value: Any) -> list[int]:
        self.nodes -= 2 * _TEXT_NODES
        return [int(length) for length in self.printer.call(getattr, value, "shape")]

    def frame(self, value: Any, depth: int) -> Any:
        """Of pandas, polars and PyArrow: shape, names and types of the first columns, their first rows."""
        self.nodes -= _FRAME_NODES
        shape = self._shape(value)
        names, dtypes, first = self.printer.call(head_of_frame, value)
        form = self._form(value, shape, self.value(dtypes, depth), self.value(first, depth))
        return form | {"columns": self.value(names, depth)}

    def image(self, value: Any, depth: int) -> Any:
        """Of Pillow: height, width and bands as the shape, the mode, and the first pixels."""
        shape, pixels = self.printer.call(parts_of_image, value)
        return self._form(value, shape, str(value.mode), self.value(pixels, depth))

    def _form(self, value: Any, shape: list[int], dtype: Any, first: Any) -> dict[str, Any]:
        self.nodes -= _CONTAINER_NODES + len(shape)
        kind = type(value)
        module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
        form = {"type": f"{module}{kind.__qualname__}", "shape": shape, "dtype": dtype, "first": first}
        return {key: item for key, item in form.items() if item is not None}


def _says_nothing(name: str, value: Any) -> bool:
    """Whether the value under a secret name is none: absent, yes or no, masked, or what "auth" is about."""
    kind = type(value)
    if kind in _PLAIN:
        return name[-4:].lower() == "auth"
    return value is None or kind is bool or (kind is str and not value.strip("*"))


def _is_innocent(text: str) -> bool:
    """Whether a short text can hold no secret."""
    return text.isascii() and "=" not in text and ":" not in text


_HANDLERS: Final[dict[Any, _Handler]] = {
    dict: Walk.mapping,
    **dict.fromkeys((list, tuple, set, frozenset, deque), Walk.sequence),
    **dict.fromkeys((bytes, bytearray, memoryview), Walk.bytes),
}


@lru_cache(maxsize=512)
def _handler(kind: Any) -> _Handler:
    """How values of a type are walked. The type alone is asked: a mock or a proxy says yes to everything."""
    for bases, handler in _BASES:
        if issubclass(kind, bases):
            return handler
    if hasattr(kind, "model_dump"):
        return Walk.model
    if hasattr(kind, "__dataclass_fields__"):
        return Walk.dataclass
    looks_like = (handler for has_form, handler in _FORMS if has_form(kind))
    return next(looks_like, Walk.opaque)


_FORMS: Final[tuple[tuple[Callable[[Any], bool], _Handler], ...]] = (
    (is_tensor, Walk.tensor),
    (is_array, Walk.array),
    (is_frame, Walk.frame),
    (is_image, Walk.image),
)
_BASES: Final[tuple[tuple[Any, _Handler], ...]] = (
    (Enum, Walk.enum),
    (str, Walk.string),
    (int, Walk.integer),
    (float, Walk.float),
    (dict, Walk.mapping),
    (_TEXT_LIKE, Walk.text_like),
    (CONTAINERS, Walk.sequence),
    ((bytes, bytearray, array), Walk.bytes),
)


def _are_finite(items: list[Any]) -> bool:
    """Whether all are finite floats, as in an embedding: told in C, and faster than one by one."""
    return set(map(type, items)) == {float} and math.isfinite(sum(items))


def _is_model(kind: Any) -> bool:
    return hasattr(kind, "__pydantic_fields__")


@lru_cache(maxsize=512)
def _takes_fallback(kind: Any) -> bool:
    """Whether ``model_dump`` of this class has the argument ``fallback``, which is new in pydantic 2.10."""
    try:
        return "fallback" in signature(kind.model_dump).parameters
    except (TypeError, ValueError):
        return False


def _serializes_itself(kind: Any) -> bool:
    decorators = kind.__pydantic_decorators__
    return bool(decorators.model_serializers or decorators.field_serializers)


def _has_serializer(field: Any) -> bool:
    return "Serializer(" in repr((field.annotation, field.metadata))


def _described(value: Any, why: str) -> str:
    kind = type(value)
    size = f" of {size_of(value)}" if issubclass(kind, CONTAINERS) else ""
    return f"<{kind.__name__}{size}, {why}>"


def _fitting(text: str, most: int) -> tuple[int, int]:
    """How many characters of ``text`` fit into so many bytes of UTF-8, and how many bytes they take."""
    left = most
    for start in range(0, len(text), _PIECE):
        piece = text[start : start + _PIECE].encode("utf-8", "surrogatepass")
        if len(piece) > left:
            return start + len(piece[:left].decode("utf-8", "ignore")), most
        left -= len(piece)
    return len(text), most - left
