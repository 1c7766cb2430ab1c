"""Two traces side by side: spans aligned, the words of messages compared, and the facts that differ."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from itertools import groupby
from typing import Any, Final

import orjson

from .._capture.values import cut, safe_repr
from ..exceptions import FilterError, TraceNotFoundError
from ..messages.content import Conversation, Message, Part, spell_arguments, spell_call
from ..messages.conversation import main_span
from ..model import Span, Trace
from ..query.fields import Field, Operator, find_field
from ..query.order import parse_order
from ..query.tree import And, Compare, Node
from ..stores import Selection, Snapshot
from ..stores.base import TraceRow
from .description import Group, Pair, assessments_of, tags_of
from .listing import read_neighbours
from .scope import find_grouping
from .span_tree import SpanTree
from .statistics import Sample, quantile

SAME: Final = "same"
REMOVED: Final = "removed"
ADDED: Final = "added"
_CHINESE: Final = r"[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]"  # also Japanese and Korean
_WORD: Final = re.compile(rf"{_CHINESE}|(?:(?!{_CHINESE})\w)+|\s+|.", re.DOTALL)
_LINE: Final = re.compile(r"[^\n]*\n|[^\n]+")
_MOST_MESSAGES: Final = 100
_MOST_TEXT: Final = 500_000
_MOST_AT_ONCE: Final = 2_000_000
_NAME: Final = find_field(None, "name")
_DURATION: Final = find_field(None, "execution_time")
_SELDOM_EQUAL: Final = frozenset({"request id"})


# Spans


@dataclass(frozen=True, slots=True)
class SpanFigures:
    """A span, ``start_ns`` after its trace began; ``duration_ns`` is ``None`` while it runs."""

    span_id: str
    start_ns: int
    duration_ns: int | None
    status: str


@dataclass(frozen=True, slots=True)
class SpanPair:
    """The spans with the same name and path in two traces; ``a`` or ``b`` is ``None`` if only one has it.

    ``difference_ns`` is how much longer ``b`` took; ``None`` if that is not known.
    """

    name: str
    type: str
    depth: int
    a: SpanFigures | None
    b: SpanFigures | None
    difference_ns: int | None


def align_spans(a: SpanTree, b: SpanTree) -> list[SpanPair]:
    """The spans of both traces, depth first.

    Spans are one pair if they have the same name, are the first (second, third) of it below their parent, and
    their parents are a pair. The roots are a pair whatever their names are.
    """
    known: dict[tuple[int, str, int], int] = {}
    found: list[list[Span | None]] = []
    below: list[dict[int, list[int]]] = [{}, {}]
    for side, tree in enumerate((a, b)):
        numbers: list[int] = []
        count: dict[tuple[int, str], int] = {}
        for span, _, above in tree.places:
            parent, name = (-1, "") if above is None else (numbers[above], span.name)
            place = count[parent, name] = count.get((parent, name), -1) + 1
            number = known.setdefault((parent, name, place), len(found))
            if number == len(found):
                found.append([None, None])
            found[number][side] = span
            numbers.append(number)
            below[side].setdefault(parent, []).append(number)
    begins = a.begin, b.begin
    return [_pair(found[number], depth, begins) for number, depth in _depth_first(*below)]


def _depth_first(
    first: Mapping[int, list[int]], second: Mapping[int, list[int]]
) -> Iterator[tuple[int, int]]:
    stack = [(-1, -1)]
    while stack:
        number, depth = stack.pop()
        if number >= 0:
            yield number, depth
        children = _merge(first.get(number, ()), second.get(number, ()))
        stack += ((child, depth + 1) for child in reversed(children))


def _merge(first: Sequence[int], second: Sequence[int]) -> list[int]:
    """``first``, and what only ``second`` has, after what it follows there."""
    known, last = set(first), -1
    following: dict[int, list[int]] = {}
    for one in second:
        if one in known:
            last = one
        else:
            following.setdefault(last, []).append(one)
    found = following.get(-1, [])
    for one in first:
        found += [one, *following.get(one, ())]
    return found


def _pair(spans: Sequence[Span | None], depth: int, begins: tuple[int, int]) -> SpanPair:
    a, b = (
        None if span is None else _figures(span, begin) for span, begin in zip(spans, begins, strict=True)
    )
    span = spans[0] or spans[1]
    assert span is not None
    took = [None if one is None else one.duration_ns for one in (a, b)]
    difference = None if took[0] is None or took[1] is None else took[1] - took[0]
    return SpanPair(span.name, span.span_type, depth, a, b, difference)


def _figures(span: Span, begin: int) -> SpanFigures:
    start, end = span.start_time_ns, span.end_time_ns
    return SpanFigures(
        span.span_id, start - begin, None if end is None else end - start, span.status.code.value
    )


# Words


@dataclass(frozen=True, slots=True)
class Run:
    """Words of both texts (``kind`` ``same``), or of only the first (``removed``) or second (``added``)."""

    kind: str
    text: str


@dataclass(slots=True)
class Effort:
    """What may still be spent on comparing texts: pairs of words, about 10 million a second."""

    left: int = 6_000_000


def diff_words(a: str, b: str, effort: Effort | None = None) -> list[Run]:
    """The words that two texts share, in order, and those of only one.

    Long texts are compared by line first; where there is too much to compare, all of it counts as replaced.
    """
    return list(_joined(_diff(a, b, effort or Effort(), (_WORD, _LINE))))


def _diff(a: str, b: str, effort: Effort, units: Sequence[re.Pattern[str]]) -> Iterator[Run]:
    unit, *coarser = units
    first, second = unit.findall(a), unit.findall(b)
    head = _common(first, second)
    tail = _common(first[head:][::-1], second[head:][::-1])
    yield Run(SAME, "".join(first[:head]))
    one, other = first[head : len(first) - tail], second[head : len(second) - tail]
    cost = len(one) * len(other)
    if cost <= min(effort.left, _MOST_AT_ONCE):
        effort.left -= cost
        # The longer one second, where frequent words are left out, and no match begins with a blank: each
        # word is compared with all of the same, again for each match.
        is_longer = len(one) > len(other)
        pair = (other, one) if is_longer else (one, other)
        for kind, *ends in SequenceMatcher(str.isspace, *pair).get_opcodes():
            begin, end, start, stop = ends[2:] + ends[:2] if is_longer else ends
            texts = "".join(one[begin:end]), "".join(other[start:stop])
            if kind == "equal":
                yield Run(SAME, texts[0])
            elif kind == "replace" and unit is _LINE:
                yield from _diff(*texts, effort, (_WORD,))
            else:
                yield from (Run(REMOVED, texts[0]), Run(ADDED, texts[1]))
    elif coarser:
        yield from _diff("".join(one), "".join(other), effort, coarser)
    else:
        yield from (Run(REMOVED, "".join(one)), Run(ADDED, "".join(other)))
    yield Run(SAME, "".join(first[len(first) - tail :]))


def _common(first: Sequence[str], second: Sequence[str]) -> int:
    pairs = enumerate(zip(first, second, strict=False))
    return next((at for at, (one, other) in pairs if one != other), min(len(first), len(second)))


def _joined(runs: Iterable[Run]) -> Iterator[Run]:
    """Runs that alternate; blanks between two changes are part of both."""
    groups = [
        (is_same, list(some))
        for is_same, some in groupby((run for run in runs if run.text), lambda run: run.kind == SAME)
    ]
    changes: list[Run] = []
    for at, (is_same, some) in enumerate(groups):
        if not is_same:
            changes += some
            continue
        text = "".join(run.text for run in some)
        if text.isspace() and 0 < at < len(groups) - 1:
            changes += [Run(REMOVED, text), Run(ADDED, text)]
        else:
            yield from _changed(changes)
            yield Run(SAME, text)
            changes = []
    yield from _changed(changes)


def _changed(changes: Sequence[Run]) -> Iterator[Run]:
    for kind in (REMOVED, ADDED):
        if text := "".join(run.text for run in changes if run.kind == kind):
            yield Run(kind, text)


# Messages


@dataclass(frozen=True, slots=True)
class MessagePair:
    """A message of each trace, or of one; ``size`` is the number of characters of the longer one.

    ``is_answer``: it is of the answers. ``is_same``: both say the same. The last ``cut`` characters of the
    longer one are not in ``runs``.
    """

    role: str
    is_answer: bool
    is_same: bool
    runs: tuple[Run, ...]
    size: int
    cut: int


@dataclass(slots=True)
class _Text:
    role: str
    text: str


def conversation_to_compare(trace: Trace, known: Mapping[str, Conversation]) -> Conversation:
    """The conversation that stands for a trace, else the inputs and outputs of its root.

    ``known`` are the conversations of its spans, by id.
    """
    if (main := main_span(trace.data.spans, known)) is not None:
        return known[main]
    root = trace.root
    sides = (
        (("inputs", None), ("outputs", None))
        if root is None
        else (("inputs", root.inputs), ("outputs", root.outputs))
    )
    asked, answers = (
        () if value in (None, {}) else (Message(role, (_part_of(value),)),) for role, value in sides
    )
    return Conversation(asked, answers)


def _part_of(value: Any) -> Part:
    return Part("text", value) if isinstance(value, str) else Part("data", data=value)


def diff_messages(a: Conversation, b: Conversation) -> list[MessagePair]:
    """The messages of two conversations, of each at most the last 100, and then their answers."""
    effort, room = Effort(), _MOST_TEXT
    found = []
    for is_answer, first, second in ((False, a.asked, b.asked), (True, a.answers, b.answers)):
        for one, other in _pair_messages(first, second):
            texts = [text.text for text in (one, other) if text is not None]
            size = max(map(len, texts))
            kept = min(size, room)
            room -= kept
            if one is not None and other is not None:
                runs = diff_words(one.text[:kept], other.text[:kept], effort)
            else:
                runs = [Run(ADDED if one is None else REMOVED, texts[0][:kept])]
            role = (one or other or _Text("", "")).role
            is_same = len(texts) == 2 and texts[0] == texts[1]
            found.append(MessagePair(role, is_answer, is_same, tuple(runs), size, size - kept))
    return found


def _pair_messages(
    first: Sequence[Message], second: Sequence[Message]
) -> Iterator[tuple[_Text | None, _Text | None]]:
    """Equal messages in pairs, and those between them by role."""
    a, b = (
        [_Text(one.role, _written(one.parts)) for one in some[-_MOST_MESSAGES:]] for some in (first, second)
    )
    keys = [[(one.role, one.text) for one in some] for some in (a, b)]
    matched = SequenceMatcher(None, keys[0], keys[1], autojunk=False)
    for kind, begin, end, start, stop in matched.get_opcodes():
        left, right = a[begin:end], b[start:stop]
        if kind == "equal":
            yield from zip(left, right, strict=True)
            continue
        roles = [one.role for one in left], [one.role for one in right]
        for _, low, high, bottom, top in SequenceMatcher(None, *roles, autojunk=False).get_opcodes():
            if roles[0][low:high] == roles[1][bottom:top]:
                yield from zip(left[low:high], right[bottom:top], strict=True)
            else:
                yield from ((one, None) for one in left[low:high])
                yield from ((None, one) for one in right[bottom:top])


def _written(parts: Iterable[Part]) -> str:
    return "\n".join(filter(None, map(_write_part, parts)))


def _write_part(part: Part) -> str:
    if part.kind == "tool_call":
        return "\n".join(filter(None, (spell_call(part), _written(part.parts))))
    if part.kind == "tool_result":
        return f"{part.name or 'result'}: {_written(part.parts)}"
    if part.kind == "data":
        try:
            return orjson.dumps(part.data, option=orjson.OPT_INDENT_2).decode()
        except TypeError:  # it is nested too deeply, or has too large a number
            return spell_arguments([part.data])
    return part.text or " ".join(filter(None, (f"[{part.kind}]", part.mime, part.name)))


# Facts


@dataclass(frozen=True, slots=True)
class FactPair:
    """A fact that differs: its value in each trace, ``None`` in one that lacks it."""

    group: str
    label: str
    a: str | None
    b: str | None


def differing_facts(
    a: tuple[Trace, Iterable[Group]], b: tuple[Trace, Iterable[Group]]
) -> tuple[list[FactPair], int]:
    """The facts, tags and feedback that differ, and the number of those that do not.

    Each trace comes with its groups, as ``describe`` makes them.
    """
    sides = [_facts(*side) for side in (a, b)]
    places = dict.fromkeys((*sides[0], *sides[1]))
    pairs = [FactPair(*place, sides[0].get(place), sides[1].get(place)) for place in places]
    differing = [one for one in pairs if one.a != one.b]
    order = {title: at for at, title in enumerate(dict.fromkeys(one.group for one in pairs))}
    return sorted(differing, key=lambda one: order[one.group]), len(pairs) - len(differing)


def _facts(trace: Trace, groups: Iterable[Group]) -> dict[tuple[str, str], str]:
    more = (
        Group("Tags", tuple(Pair(key, value) for key, value in tags_of(trace).items())),
        Group("Feedback", tuple(Pair(*one) for one in assessments_of(trace))),
    )
    found: dict[tuple[str, str], str] = {}
    for group in (*groups, *more):
        for pair in group.pairs:
            if pair.label not in _SELDOM_EQUAL:
                place = group.title, pair.label
                # Feedback may be given several times under one name.
                found[place] = f"{found[place]}; {pair.value}" if place in found else pair.value
    return found


# Choices


def read_same_route(snapshot: Snapshot, trace: Trace) -> tuple[str | None, str | None]:
    """The ids of the previous and the next trace with the same name, in the same experiment."""
    info = trace.info
    named = Compare(_NAME, Operator.IS_NULL if info.name is None else Operator.EQ, info.name)
    return read_neighbours(snapshot, Selection(named, (info.experiment,)), info, None, None)


def typical_pair(
    snapshot: Snapshot, selection: Selection, by: str, baseline: str, candidate: str
) -> tuple[str, str]:
    """The ids of a trace of each value, near to the median duration of its value on the route of both.

    That is the route of which both values have the most traces.

    Raises:
        FilterError: nothing is named ``by``, or no filter selects its values.
        TraceNotFoundError: no route has traces of both values, or none of one is left of those that ended.
    """
    field = find_grouping(by, snapshot)
    if Operator.EQ not in field.operators:
        raise FilterError(f"no filter selects traces by {field.label}: name two traces by their ids")
    within = [_narrowed(selection, field, value) for value in (baseline, candidate)]
    routes = [{one.value: one for one in snapshot.groups(each, _NAME)} for each in within]
    shared = [name for name in routes[0] if name is not None and name in routes[1]]
    if not shared:
        raise TraceNotFoundError(f"no route has traces of {_named(baseline)} and of {_named(candidate)}")
    route = max(shared, key=lambda name: (min(side[name].traces for side in routes), name))
    found = []
    for side, named, value in zip(within, routes, (baseline, candidate), strict=True):
        durations = Sample(named[route].succeeded) + Sample(named[route].failed)
        median = quantile(durations, 0.5) / 1000 if durations else None
        nearest = _nearest(snapshot, _narrowed(side, _NAME, route), median)
        if nearest is None:
            raise TraceNotFoundError(
                f"no trace of {_named(value)} that has ended is left on the route {_named(route)}"
            )
        found.append(nearest.trace_id)
    return found[0], found[1]


def _named(value: str) -> str:
    return cut(safe_repr(value), 100)


def _narrowed(selection: Selection, field: Field, value: str) -> Selection:
    return _also(selection, Compare(field, Operator.EQ, value))


def _also(selection: Selection, condition: Node) -> Selection:
    tree = selection.tree
    return replace(selection, tree=condition if tree is None else And((tree, condition)))


def _nearest(snapshot: Snapshot, selection: Selection, ms: float | None) -> TraceRow | None:
    if ms is None:
        return None
    rows = [
        row
        for operator, order in ((Operator.GE, "ASC"), (Operator.LE, "DESC"))
        for row in snapshot.rows(
            snapshot.search(
                _also(selection, Compare(_DURATION, operator, ms)),
                parse_order((f"execution_time {order}",)),
                1,
            ).keys
        )
    ]
    return min(rows, key=lambda row: abs((row.duration_ms or 0) - ms), default=None)
