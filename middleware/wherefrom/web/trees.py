"""JSON as a tree that folds: a list in HTML, which needs no script."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import orjson
from markupsafe import Markup, escape

from .._sanitize import visible, visible_lines
from .._units import counted

_OPEN: Final = 2  # levels that are unfolded at first
_MOST_LEVELS: Final = 12
_MOST_KEY: Final = 120
_TEXT_LINE: Final = 100
_MOST_IN_ALL: Final = 100_000  # characters of all texts of one tree


def tree(value: Any, whole: str, path: str, most_items: int = 300, most_text: int = 4_000) -> Markup:
    """The tree of a value: at most so many items of it, and so many characters of each text.

    ``whole`` is the address of the JSON that has the value in full. With ``path``, its place there, the
    script of the page copies paths and values.
    """
    writer = _Writer(whole, most_items, most_text)
    if isinstance(value, (dict, list)) and value:
        content = "".join(writer.items(value, 1))
    else:
        content = f"<li>{writer.leaf(value)}</li>"
    place = Markup(' data-whole="{}" data-path="{}"').format(whole, path) if path else ""
    opening = f'<ul class="tree"{place}>'
    return Markup(f"{opening}{content}</ul>")  # noqa: S704 - all of it was escaped


class _Writer:
    """Writes the items of one tree and counts them."""

    def __init__(self, whole: str, most_items: int, most_text: int) -> None:
        self._whole = escape(whole)
        self._left = most_items
        self._most_text = most_text
        self._text_left = _MOST_IN_ALL

    def items(self, value: dict[str, Any] | list[Any], level: int) -> Iterator[str]:
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for at, (key, item) in enumerate(pairs):
            if self._left <= 0 or level > _MOST_LEVELS:
                yield f'<li class="note">{self._more(counted(len(value) - at, "more item"))}</li>'
                return
            self._left -= 1
            name = f"<b>{_shown(str(key))}</b>"
            if isinstance(item, (dict, list)) and item:
                sign = "{}" if isinstance(item, dict) else "[]"
                inner = "".join(self.items(item, level + 1))
                is_open = " open" if level < _OPEN or len(item) == 1 else ""
                size = f'<span class="note">{sign[0]}{len(item):,}{sign[1]}</span>'
                head = f"<summary>{name} {size}</summary>"
                yield f'<li data-key="{escape(key)}"><details{is_open}>{head}<ul>{inner}</ul></details></li>'
            else:
                yield f'<li data-key="{escape(key)}">{name} {self.leaf(item)}</li>'

    def leaf(self, value: Any) -> str:
        if not isinstance(value, str):
            return f'<code class="v">{escape(orjson.dumps(value).decode())}</code>'
        kept = value[: min(self._most_text, self._text_left)]
        self._text_left -= len(kept)
        shown = escape("\n".join(visible_lines(kept)))
        cut = len(value) - len(kept)
        more = f' <span class="note">{self._more(counted(cut, "more character"))}</span>' if cut else ""
        if len(kept) > _TEXT_LINE or "\n" in kept:
            return f'<pre class="v" dir="auto" tabindex="0">{shown}</pre>{more}'
        return f'<span class="v" dir="auto">{shown}</span>{more}' if kept else '<code class="v">""</code>'

    def _more(self, what: str) -> str:
        return f'<a href="{self._whole}">{what} in the JSON</a>'


def _shown(key: str) -> Markup:
    return escape(visible(key[:_MOST_KEY]) + ("…" if len(key) > _MOST_KEY else ""))
