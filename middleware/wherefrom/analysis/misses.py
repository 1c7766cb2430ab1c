"""Why a filter finds nothing: which of its parts does, and which values there are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from ..query import format_filter
from ..query.edit import substitute
from ..query.errors import near_words, phrase
from ..query.fields import SEARCH_FIELD, Family, Field, Operator, Type, find_field, stored_key
from ..query.order import NEWEST_FIRST
from ..query.parser import parse_field
from ..query.tree import And, Compare, Node, Or, flatten, format_field
from ..stores import Selection, Snapshot

_MOST_PARTS: Final = 8
_MOST_VALUES: Final = 6
_MOST_KNOWN: Final = 100
_LONGEST: Final = 60
_TRACE_ID: Final = find_field(None, "request_id")
_REQUEST_ID: Final = find_field(None, "client_request_id")


@dataclass(frozen=True, slots=True)
class Miss:
    """One sentence about a part of a filter, and whole filters that may have been meant."""

    message: str
    suggestions: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """The message with a capital letter and a full stop, unless it ends as a question."""
        end = "" if self.message.endswith("?") else "."
        return f"{self.message[:1].upper()}{self.message[1:]}{end}"


def explain(snapshot: Snapshot, selection: Selection, within: Selection) -> list[Miss]:
    """Why ``within``, the selection in a time range, is empty; nothing if no part is to blame.

    Raises:
        QueryTimeoutError: the deadline of the snapshot has passed.
    """
    parts = [] if selection.tree is None else flatten([selection.tree])[:_MOST_PARTS]
    found = [miss for part in parts for miss in _explain_part(snapshot, selection, part)]
    if found or not parts:
        return found
    alone = [part for part in parts if not _is_found(snapshot, within, part)]
    if alone and len(parts) > 1:
        return [Miss(f"nothing in the time range has {format_filter(part)}") for part in alone]
    if len(parts) == 1:
        return []
    return [
        Miss("each part finds traces, but no trace has all of them", tuple(_shorter(snapshot, within, parts)))
    ]


def _explain_part(snapshot: Snapshot, selection: Selection, part: Node) -> Iterator[Miss]:
    """What is wrong with a part whatever the time range."""
    tree = selection.tree
    for condition in _positive(part):
        field, value = condition.field, condition.value
        if _is_unknown(snapshot, field):
            near = _near_keys(snapshot, field)
            others = (replace(condition, field=parse_field(one)) for one in near)
            texts = tuple(_with(tree, condition, other) for other in others)
            yield Miss(f"no trace carries {format_field(field)}{phrase(near)}", texts)
        elif field == _TRACE_ID and isinstance(value, str) and not value.startswith("tr-"):
            other = _with(tree, condition, replace(condition, field=_REQUEST_ID))
            yield Miss(
                f"the field {field.name} is the trace id; the request id is {_REQUEST_ID.name}", (other,)
            )
        elif _is_of_values(condition):
            yield from _explain_value(snapshot, selection, condition)


def _positive(node: Node) -> Iterator[Compare]:
    """The conditions outside of NOT."""
    match node:
        case Compare():
            yield node
        case And(parts) | Or(parts):
            for part in parts:
                yield from _positive(part)


def _explain_value(snapshot: Snapshot, selection: Selection, condition: Compare) -> Iterator[Miss]:
    field, wanted = condition.field, str(condition.value)
    known = snapshot.values(field, _MOST_KNOWN)
    # A search for a value that no index has would read the whole store.
    is_indexed = not field.attributes and field.family is not Family.SPAN
    everywhere = replace(selection, tree=None)
    if wanted in known or (is_indexed and _is_found(snapshot, everywhere, condition)):
        return
    folded = {value.casefold(): value for value in known}
    near = [folded[key] for key in near_words(wanted.casefold(), list(folded))]
    shown = [value[:_LONGEST] for value in [*near, *(value for value in known if value not in near)]]
    listed = ", ".join(shown[:_MOST_VALUES]) + (", ..." if len(shown) > _MOST_VALUES else "")
    subject = "no trace" if is_indexed else "none of the newest traces"
    yield Miss(
        f"{subject} has {format_filter(condition)}" + (f"; there are {listed}" if listed else ""),
        tuple(_with(selection.tree, condition, replace(condition, value=value)) for value in near),
    )


def _is_of_values(condition: Compare) -> bool:
    field = condition.field
    return (
        condition.operator is Operator.EQ
        and field.type in {Type.TEXT, Type.ANY, Type.JSON}
        and field != SEARCH_FIELD
    )


def _is_unknown(snapshot: Snapshot, field: Field) -> bool:
    if field.key is None or field.constant is not None:
        return False
    return not snapshot.has_key(field.family.value, stored_key(field))


def _near_keys(snapshot: Snapshot, field: Field) -> list[str]:
    dot = f"{field.name}."
    known = {key.removeprefix(dot).strip("`"): key for key in snapshot.spelled_keys() if key.startswith(dot)}
    return near_words(field.key or "", known)


def _is_found(snapshot: Snapshot, selection: Selection, part: Node) -> bool:
    """Whether the part alone finds a trace within a selection, whose filter it replaces but for its range."""
    bounds = [] if selection.tree is None else [one for one in flatten([selection.tree]) if _is_time(one)]
    tree = And((part, *bounds)) if bounds else part
    return bool(snapshot.search(replace(selection, tree=tree), NEWEST_FIRST, 1).keys)


def _is_time(part: Node) -> bool:
    return isinstance(part, Compare) and part.field.type is Type.TIME


def _shorter(snapshot: Snapshot, within: Selection, parts: list[Node]) -> Iterator[str]:
    """The filters without one part that find something."""
    for part in parts:
        others = [one for one in parts if one is not part]
        rest = others[0] if len(others) == 1 else And(tuple(others))
        if not _is_time(part) and _is_found(snapshot, within, rest):
            yield format_filter(rest)


def _with(tree: Node | None, old: Compare, new: Compare) -> str:
    """The filter with another condition in place of one."""
    return "" if tree is None else format_filter(substitute(tree, old, new))
