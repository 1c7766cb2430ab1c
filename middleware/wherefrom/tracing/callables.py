"""Traced callables other than plain functions: tasks, caches, partials and objects of any class."""

from __future__ import annotations

import sys
from collections.abc import Callable
from copy import copy, deepcopy
from functools import lru_cache
from types import MethodType
from typing import Any, Final, Self

# If a callable lacks these, they are taken from the function that records its calls. ``inspect`` reads from
# ``__code__`` whether a callable is a coroutine function.
_OF_FUNCTION: Final = frozenset(
    {"__annotations__", "__code__", "__defaults__", "__kwdefaults__", "__name__", "__qualname__"}
)


class TracedCallable:
    """Records calls. Attributes, methods, binding and type are those of the wrapped callable.

    Args:
        func: The callable.
        call: A function that calls ``func`` and records the call.
        again: A picklable function that wraps another callable in the same way.
    """

    def __new__(cls, func: Any, call: Callable[..., Any], again: Callable[[Any], Any]) -> Self:
        """Make an instance of a subclass with the operators of the callable's class."""
        self: Self = object.__new__(_class_for(type(func)))  # type: ignore[arg-type, assignment]
        vars(self).update(
            __wrapped__=func,
            __module__=getattr(func, "__module__", None),
            __doc__=getattr(func, "__doc__", None),
            _call=call,
            _again=again,
        )
        return self

    @property  # type: ignore[misc] # read-only here
    def __class__(self) -> Any:
        return self.__wrapped__.__class__

    @property
    def __call__(self) -> Callable[..., Any]:
        """The recording function: frameworks check it to decide whether to await a call."""
        return self._call  # type: ignore[no-any-return]

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        func = self.__wrapped__
        bind = getattr(type(func), "__get__", None)
        bound = func if bind is None else bind(func, instance, owner)
        if bound is func:
            return self
        if type(bound) is MethodType and bound.__func__ is func:
            return MethodType(self, bound.__self__)
        return self._again(bound)

    def __getattr__(self, name: str) -> Any:
        own = object.__getattribute__(self, "__dict__")
        try:
            return getattr(own["__wrapped__"], name)
        except AttributeError:
            if name in _OF_FUNCTION:
                return getattr(own["_call"], name)
            raise

    def __setattr__(self, name: str, value: Any) -> None:
        try:
            setattr(self.__wrapped__, name, value)
        except (AttributeError, TypeError):  # such as those of a builtin
            vars(self)[name] = value

    def __delattr__(self, name: str) -> None:
        if vars(self).pop(name, self) is self:
            delattr(self.__wrapped__, name)

    def __repr__(self) -> str:
        return repr(self.__wrapped__)

    def __dir__(self) -> Any:
        return dir(self.__wrapped__)

    def __copy__(self) -> Any:
        return self._of_copy(copy(self.__wrapped__))

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self._of_copy(deepcopy(self.__wrapped__, memo))

    def _of_copy(self, func: Any) -> Any:
        return self if func is self.__wrapped__ else self._again(func)

    def __reduce_ex__(self, _protocol: Any) -> Any:
        """Pickle by name if its module has it under that name, else as the callable and its wrapper."""
        name: str = self.__qualname__
        found: Any = sys.modules.get(str(self.__module__))
        for part in name.split("."):
            found = getattr(found, part, None)
        return name if found is self else (self._again, (self.__wrapped__,))


# Attributes of a callable's class that the traced callable does not take over.
_NOT_FORWARDED: Final = frozenset(
    {
        *vars(object), *vars(TracedCallable),
        "__getattr__", "__del__", "__set_name__", "__set__", "__delete__", "__slots__", "__weakref__",
        "__init_subclass__", "__class_getitem__", "__getstate__", "__setstate__",
        "__getnewargs__", "__getnewargs_ex__", "__instancecheck__", "__subclasscheck__", "__mro_entries__",
    }
)  # fmt: skip


@lru_cache(maxsize=256)
def _class_for(kind: type) -> type[TracedCallable]:
    """Return a subclass with the operators of ``kind``, which Python looks up on the class."""
    names = {
        name
        for base in kind.__mro__
        for name, value in vars(base).items()
        if name.startswith("__") and name.endswith("__") and callable(value) and name not in _NOT_FORWARDED
    }
    return type("TracedCallable", (TracedCallable,), {name: _forwarded(name) for name in names})


def _forwarded(name: str) -> Callable[..., Any]:
    def operator(self: TracedCallable, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.__wrapped__, name)(*args, **kwargs)

    return operator
