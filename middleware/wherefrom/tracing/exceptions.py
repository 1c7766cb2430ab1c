"""Attributes and descriptions of exceptions."""

from __future__ import annotations

import os
import traceback
from typing import Any

from .._capture.values import PREVIEW_LENGTH, cut, redacted_text, safe_repr

_MAX_STACKTRACE = 20_000
_MAX_MESSAGE = 100_000
_OWN_FOLDER = os.path.join(os.path.dirname(os.path.dirname(__file__)), "")  # the whole package's


def exception_attributes(error: BaseException) -> dict[str, Any]:
    """Return the attributes of the event ``exception`` by OpenTelemetry's conventions, without our frames."""
    kind = type(error)
    module = f"{kind.__module__}." if kind.__module__ not in {None, "builtins"} else ""
    try:
        stack = "".join(_foreign_frames(traceback.TracebackException.from_exception(error)).format())
    except Exception:  # noqa: BLE001 - somebody else's __str__
        stack = safe_repr(error)
    return {
        "exception.type": module + kind.__qualname__,
        "exception.message": redacted_text(error, _MAX_MESSAGE),
        "exception.stacktrace": stack if len(stack) <= _MAX_STACKTRACE else "..." + stack[-_MAX_STACKTRACE:],
    }


def describe(error: BaseException) -> str:
    """Return type and message, for the description of a status."""
    return cut(f"{type(error).__name__}: {redacted_text(error, PREVIEW_LENGTH)}", PREVIEW_LENGTH)


def _foreign_frames(error: traceback.TracebackException) -> traceback.TracebackException:
    """Remove our own frames, which say nothing about the app."""
    frames = [frame for frame in error.stack if not frame.filename.startswith(_OWN_FOLDER)]
    error.stack = traceback.StackSummary.from_list(frames)
    return error
