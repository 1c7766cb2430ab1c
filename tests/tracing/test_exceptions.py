"""What is recorded of an exception."""

from __future__ import annotations

from typing import Any

from wherefrom.asgi.headers import index_headers
from wherefrom.sinks import FanOut
from wherefrom.tracing.exceptions import describe, exception_attributes


def caught(call: Any, *arguments: Any) -> BaseException:
    try:
        call(*arguments)
    except Exception as error:
        return error
    raise AssertionError


def test_the_stack_has_the_app_s_frames_alone() -> None:
    """Frames of every part of the package are left out: they say nothing about the app."""
    for call, arguments in ((index_headers, (None,)), (FanOut().write, ()), (describe, ())):
        stack = exception_attributes(caught(call, *arguments))["exception.stacktrace"]
        assert "/wherefrom/" not in stack.replace("tests", "")
        assert __file__ in stack


def test_kind_and_message() -> None:
    """The type with its module, and the message as text."""
    told = exception_attributes(ValueError("\ud800"))
    assert (told["exception.type"], told["exception.message"]) == ("ValueError", "?")
    assert describe(KeyError("x")) == "KeyError: 'x'"
