"""Elements of SVG: what strangers wrote is text in them and nothing else."""

from __future__ import annotations

from typing import Final

from markupsafe import Markup, escape

from ...visible import visible
from .looks import LOOKS

Value = str | float | None

_SPELLED: Final = {"class_": "class"}
NOTHING: Final = Markup()
_LONGEST: Final = 1_000


def element(name: str, *content: str, look: str = "", **attributes: Value) -> Markup:
    """One element: ``content`` that is no ``Markup`` is text, attributes that are ``None`` are left out.

    Text is cut to 1,000 characters. ``look`` is one or more names from ``LOOKS``: they become the class, and
    the attributes they stand for.
    """
    styled: dict[str, Value] = {"class": look or None}
    for one in look.split():
        styled |= LOOKS[one]
    styled |= {_SPELLED.get(key, key.replace("_", "-")): value for key, value in attributes.items()}
    written = "".join(_attribute(key, value) for key, value in styled.items() if value is not None)
    inside = "".join(map(_text, content))
    return Markup(f"<{name}{written}>{inside}</{name}>" if inside else f"<{name}{written}/>")  # noqa: S704


def joined(*parts: Markup) -> Markup:
    """Elements one after the other."""
    return NOTHING.join(parts)


def percent(share: float) -> str:
    """A share of the width as SVG takes it."""
    return f"{_number(100 * share)}%"


def cut(text: str, most: int) -> str:
    """The text on one line and in at most so many characters, those that cannot be seen written out."""
    shown = visible(text if len(text) <= most else text[:most])
    return shown if len(shown) <= most and len(text) <= most else f"{shown[: most - 1]}…"


def _attribute(key: str, value: str | float) -> str:
    text = _number(value) if isinstance(value, (int, float)) else escape(visible(value))
    return f' {key}="{text}"'


def _text(content: str) -> str:
    return content if isinstance(content, Markup) else escape(cut(content, _LONGEST))


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if value % 1 else str(int(value))
