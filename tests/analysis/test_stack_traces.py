"""Stack traces: what they tell of exceptions and their frames."""

from __future__ import annotations

import traceback
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

import wherefrom
from wherefrom.analysis.stack_traces import FrameRun, frame_runs, place_of, read_stack


def frame(file: str, name: str = "f") -> list[str]:
    return [f'  File "{file}", line 3, in {name}', "    call()"]


def kinds(*files: str) -> list[tuple[str, int]]:
    return [(run.kind, run.count) for run in frame_runs([line for file in files for line in frame(file)])]


def test_frames_are_of_the_app_of_libraries_or_our_own() -> None:
    """Wherever a library or Wherefrom is installed; a folder of the app may be named as we are."""
    ours = str(Path(wherefrom.__file__).parent / "asgi" / "middleware.py")
    theirs = "/venv/lib/python3.12/site-packages/starlette/routing.py"
    assert kinds(ours, theirs, theirs, "/srv/app/main.py", "/srv/app/lib.py") == [
        ("own", 1), ("library", 2), ("app", 2),
    ]  # fmt: skip
    assert kinds("C:\\x\\site-packages\\wherefrom\\asgi\\middleware.py") == [("own", 1)]
    assert kinds("/srv/wherefrom/orders.py", "<frozen runpy>") == [("app", 1), ("library", 1)]
    assert kinds("/usr/lib/python3.11/asyncio/tasks.py", "app.py") == [("library", 1), ("app", 1)]


def test_no_line_is_lost() -> None:
    """Lines between frames, such as counts of repeats, belong to the frame before."""
    lines = ["  [2 frames]", *frame("app.py"), "  [Previous line repeated 3 more times]"]
    assert frame_runs(lines) == [FrameRun("app", 1, "\n".join(lines))]


def test_causes_contexts_and_groups_are_told_apart() -> None:
    """Read from stacks that Python wrote."""
    try:
        try:
            try:
                raise KeyError("k")
            except KeyError as error:
                raise ValueError("v") from error
        except ValueError:
            raise ExceptionGroup("g", [TypeError("t")])  # noqa: B904 - the context is what is read
    except ExceptionGroup as error:
        stack = "".join(traceback.format_exception(error))
    found = read_stack(stack)
    assert [(one.relation, one.title) for one in found] == [
        ("", "ExceptionGroup: g (1 sub-exception)"), ("in the group", "TypeError: t"),
        ("while handling", "ValueError: v"), ("caused by", "KeyError: 'k'"),
    ]  # fmt: skip
    assert [len(frame_runs(one.frames)) for one in found] == [1, 0, 1, 1]


@given(st.text(max_size=400))
def test_any_text_can_be_read(text: str) -> None:
    assert isinstance(place_of(text), str)
    for one in read_stack(text):
        frame_runs(one.frames)


def test_the_place_is_the_innermost_frame_of_the_app() -> None:
    assert place_of("no stack") == ""
    assert place_of('  File "/x/site-packages/a/b.py", line 2, in c') == "a/b.py:c"
    assert place_of('  File "C:\\app\\main.py", line 2, in <module>') == "app/main.py:<module>"


def test_a_stack_of_blanks_has_no_place() -> None:
    assert place_of(" " * 1_000_000) == ""
