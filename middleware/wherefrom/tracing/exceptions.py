"""Attributes and descriptions of exceptions: bounded in time and size, without our own frames.

A stack has the form of Python's ``traceback``, with causes and the members of groups. Omitted parts are
counted in their place: frames in the middle, and exceptions of a long chain or a large group.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from itertools import islice
from types import TracebackType
from typing import Any, Final

from .._capture.values import ELLIPSIS, PREVIEW_LENGTH, cut, hooked_text, redacted_text, safe_repr

_MAX_STACKTRACE: Final = 20_000
_LEAST_PART: Final = 500
_MAX_MESSAGE: Final = 100_000
_MESSAGE_IN_STACK: Final = 1_000
_MESSAGE_IN_GROUP: Final = 200
_FRAMES: Final = 50
_LINE: Final = 1_000
_CHAIN: Final = 10
_MOST_LINKS: Final = 1_000
_MEMBERS: Final = 10
_PARTS: Final = 40
_DEPTH: Final = 8
_NOTES: Final = 5
# anyio's text for cancellations has no prefix.
_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+|(cancel scope) (?:0x)?[0-9a-f]{6,}")
_OWN_FOLDER: Final = os.path.join(os.path.dirname(os.path.dirname(__file__)), "")  # the whole package's
_INSTALLED: Final = re.compile(r"[/\\](?:site|dist)-packages[/\\]")
_STANDARD: Final = (os.path.join(os.path.dirname(os.__file__), ""), "<frozen ")

_CAUSE: Final = "The above exception was the direct cause of the following exception:"
_CONTEXT: Final = "During handling of the above exception, another exception occurred:"
_TITLE: Final = "Traceback (most recent call last):"


def exception_attributes(error: BaseException) -> dict[str, Any]:
    """Return the attributes of the event ``exception`` by OpenTelemetry's conventions.

    The message has at most 100,000 characters, the stack about 20,000, with 1,000 of each message. Both name
    the members of an exception group.
    """
    try:
        stack = "".join(_Stack().lines(error))
    except Exception:  # noqa: BLE001 - attributes of an exception may run foreign code
        stack = safe_repr(error)
    return {
        "exception.type": type_name(error),
        "exception.message": message_of(error, _MAX_MESSAGE),
        "exception.stacktrace": stack,
    }


def type_name(error: BaseException) -> str:
    """Return the value of ``error.type``: the type with its module, or a built-in type alone."""
    kind = type(error)
    module = f"{kind.__module__}." if kind.__module__ not in {None, "builtins"} else ""
    return module + kind.__qualname__


def describe(error: BaseException) -> str:
    """Return type and message, for the description of a status."""
    message = hooked_text("exception.message", message_of(error, PREVIEW_LENGTH), PREVIEW_LENGTH)
    return cut(f"{type(error).__name__}: {without_addresses(message)}", PREVIEW_LENGTH)


def without_addresses(text: str) -> str:
    """Remove the addresses of objects, so that equal texts can be grouped: ``<Task object at 0x7f…>``."""
    return _ADDRESS.sub(r"\1", text)


def message_of(error: BaseException, limit: int) -> str:
    """Return the message without secrets. That of a group names its members; ``str`` only counts them."""
    message = redacted_text(error, limit)
    if not isinstance(error, BaseExceptionGroup):
        return message
    found: dict[str, int] = {}
    members = list(islice(_leaves(error), _MOST_LINKS))
    for member in members[:_PARTS]:
        text = redacted_text(member, _MESSAGE_IN_GROUP)
        named = f"{type(member).__name__}: {text}" if text else type(member).__name__
        found[named] = found.get(named, 0) + 1
    texts = [named if count == 1 else f"{named} ({count} times)" for named, count in found.items()]
    if len(texts) > _MEMBERS or len(members) > _PARTS:
        texts = [*texts[:_MEMBERS], ELLIPSIS]
    return cut(f"{message}: {'; '.join(texts)}", limit)


def without_framework_groups(error: BaseException) -> BaseException:
    """Return the one exception in a group that a framework made of it, or the exception itself.

    Frameworks run parts of a request, such as a stream, in a task group, which raises a group even of one
    exception. A group of several, and a group that the app raised or let pass, stays as it is.
    """
    while (
        isinstance(error, BaseExceptionGroup)
        and len(members := _members(error)) == 1
        and _is_framework_made(error.__traceback__)
    ):
        error = members[0]
    return error


def _is_framework_made(step: TracebackType | None) -> bool:
    """Whether installed code raised it, which no function of the app called, except for ASGI apps."""
    is_installed = False
    while step is not None:
        frame, step = step.tb_frame, step.tb_next
        code = frame.f_code
        if _is_on_behalf(str(frame.f_globals.get("__name__")).partition(".")[0], code.co_filename):
            continue
        is_installed = _INSTALLED.search(code.co_filename) is not None
        if not is_installed and not {"receive", "send"}.issubset(code.co_varnames[: code.co_argcount]):
            return False
    return is_installed


def _is_on_behalf(package: str, file: str) -> bool:
    """Whether it raises for the function that entered it, as a task group and an exit stack do."""
    # A module of the app may have the name of one of the standard library.
    is_standard = package in sys.stdlib_module_names and file.startswith(_STANDARD)
    return is_standard or package in {"anyio", "trio"}


def _leaves(group: BaseExceptionGroup[Any]) -> Iterator[BaseException]:
    """Yield the members that are not groups, in order, without recursion."""
    waiting: list[BaseException] = [group]
    while waiting:
        error = waiting.pop()
        if isinstance(error, BaseExceptionGroup):
            waiting += reversed(_members(error)[:_MOST_LINKS])
        else:
            yield error


def _members(group: BaseExceptionGroup[Any]) -> tuple[BaseException, ...]:
    members: tuple[BaseException, ...] = BaseExceptionGroup.exceptions.__get__(group)
    return members


class _Part:
    """One exception of a stack. Frames are omitted until it fits; the lines around them are not."""

    def __init__(
        self,
        margin: str,
        before: Sequence[str],
        error: BaseException | None = None,
        longest: int = _MESSAGE_IN_STACK,
    ) -> None:
        self.margin = margin
        self.before = list(before)
        self.frames: list[str] = []
        self.left_out, self.gap = 0, 0
        self.after: list[str] = []
        if error is not None:
            self.frames, self.gap, self.left_out = _frames(error.__traceback__)
            self.after = _ending(error, longest)

    def text(self, room: int) -> str:
        """Return its lines in little more than ``room`` characters."""
        lines = [*self.before, *self._fitting(room), *self.after]
        return "".join(f"{self.margin}{line}\n" for entry in lines for line in entry.split("\n"))

    @property
    def size(self) -> int:
        """How many characters it has."""
        return sum(len(entry) + 1 for entry in (*self.before, *self.frames, *self.after))

    def _fitting(self, room: int) -> list[str]:
        """The frames that fit: the first ones get a third of the room, and the last ones two thirds."""
        frames, left_out = self.frames, self.left_out
        room -= self.size - sum(map(len, frames))
        if not left_out and sum(map(len, frames)) <= room:
            return frames
        first = _count(frames[: self.gap], room // 3)
        last = _count(frames[self.gap if left_out else first :][::-1], room - room // 3)
        left_out += len(frames) - first - last
        return [*frames[:first], f"  ... {left_out} frames left out", *frames[len(frames) - last :]]


class _Stack:
    """The stack of an exception with its causes and members."""

    def __init__(self) -> None:
        self._parts: list[_Part] = []
        self._seen: set[int] = set()

    def lines(self, error: BaseException) -> Iterator[str]:
        """Yield the text of each exception. Larger ones may use the room that small ones leave."""
        self._add(error, 0)
        parts, room = self._parts, _MAX_STACKTRACE
        shares = {}
        for waiting, part in enumerate(sorted(parts, key=lambda part: part.size)):
            shares[part] = max(room // (len(parts) - waiting), _LEAST_PART)
            room -= min(part.size, shares[part])
        return (part.text(shares[part]) for part in parts)

    def _add(self, error: BaseException, depth: int) -> None:
        chain = self._chain(error)
        left_out = max(len(chain) - _CHAIN, 0)
        margin = _margin(depth)
        for place, (link, following) in enumerate(chain):
            if left_out and _CHAIN // 2 <= place < _CHAIN // 2 + left_out:
                if place == _CHAIN // 2:
                    self._parts.append(
                        _Part(margin, [f"... {left_out} exceptions left out", "", _CONTEXT, ""])
                    )
                continue
            if isinstance(link, BaseExceptionGroup):
                self._add_group(link, depth)
            else:
                before = [_TITLE] if link.__traceback__ is not None else []
                longest = _MESSAGE_IN_GROUP if depth else _MESSAGE_IN_STACK
                self._parts.append(_Part(margin, before, link, longest))
            if following:
                self._parts.append(_Part(margin, ["", following, ""]))

    def _add_group(self, group: BaseExceptionGroup[Any], depth: int) -> None:
        inner = depth or 1
        before = [f"Exception Group {_TITLE}"] if group.__traceback__ is not None else []
        if before and not depth:  # the margin of the first line is a plus
            self._parts.append(_Part("  + ", before))
            before = []
        self._parts.append(_Part(_margin(inner), before, group))
        members, indent = _members(group), "  " * inner
        shown = 0
        for member in members[:_MEMBERS]:
            if len(self._parts) >= _PARTS or inner >= _DEPTH:
                break
            shown += 1
            sign = f"{indent}+-" if shown == 1 else f"{indent}  "
            self._parts.append(_Part(sign, [f"+---------------- {shown} ----------------"]))
            self._add(member, inner + 1)
        rest = len(members) - shown
        if rest:
            self._parts.append(_Part(f"{indent}  | ", [f"... {rest} more exceptions"]))
        if shown:
            self._parts.append(_Part(f"{indent}  ", ["+------------------------------------"]))

    def _chain(self, error: BaseException) -> list[tuple[BaseException, str]]:
        """Return the exception and its causes, the first cause first, each with the line that follows it."""
        chain = [(error, "")]
        self._seen.add(id(error))
        while len(chain) < _MOST_LINKS:
            cause, said = error.__cause__, _CAUSE
            if cause is None and not error.__suppress_context__:
                cause, said = error.__context__, _CONTEXT
            if cause is None or id(cause) in self._seen:
                break
            self._seen.add(id(cause))
            chain.append((cause, said))
            error = cause
        return chain[::-1]


def _margin(depth: int) -> str:
    return "  " * depth + "| " if depth else ""


def _frames(stack: TracebackType | None) -> tuple[list[str], int, int]:
    """Return the app's frames as text, the number of frames omitted in the middle, and their place."""
    total, step = 0, stack
    while step is not None:
        total, step = total + 1, step.tb_next
    if total <= 2 * _FRAMES:
        texts = _texts(traceback.extract_tb(stack))
        return texts, len(texts), 0
    first, last = (_texts(traceback.extract_tb(stack, limit)) for limit in (_FRAMES, -_FRAMES))
    return first + last, len(first), total - 2 * _FRAMES


def _texts(frames: traceback.StackSummary) -> list[str]:
    foreign = [frame for frame in frames if not frame.filename.startswith(_OWN_FOLDER)]
    texts = traceback.StackSummary.from_list(foreign).format()
    return [cut(text.rstrip("\n"), _LINE) for text in texts]


def _ending(error: BaseException, longest: int) -> list[str]:
    """Return type, message and notes as a few lines of text."""
    message = redacted_text(error, _MAX_MESSAGE)
    lines = [type_name(error) + (f": {cut(message, longest)}" if message else "")]
    if isinstance(error, SyntaxError) and error.filename:
        place = [f'  File "{redacted_text(error.filename, _LINE)}", line {error.lineno}']
        lines = [*place, f"    {redacted_text(error.text or '', _LINE).strip()}", *lines]
    notes = getattr(error, "__notes__", None)
    if isinstance(notes, list):
        lines += [redacted_text(note, longest) for note in notes[:_NOTES]]
    return lines


def _count(frames: Sequence[str], room: int) -> int:
    """Return how many of the first frames fit."""
    for count, frame in enumerate(frames):
        room -= len(frame) + 1
        if room < 0:
            return count
    return len(frames)
