from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import pytest

from wherefrom.stores import Store, open_store
from wherefrom.web.application import make_application
from wherefrom.web.auth import Access

HOSTILE = (
    "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\u202etxt.exe\x1b[2J\x00 javascript:alert(1)"
)
"""A value as a stranger may send it: markup, an end of quotes, direction marks, control characters."""

VOID = frozenset({"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"})


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine counts and shows all that an idle one does."""
    for name in ("facets", "timeline"):
        monkeypatch.setattr(import_module(f"wherefrom.analysis.{name}"), "TIME_TO_COUNT_S", 60.0)
    monkeypatch.setattr(import_module("wherefrom.web.application"), "SECONDS_FOR_A_PART", 60.0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(f"sqlite:///{tmp_path / 'wherefrom.db'}")
    store.write([])
    yield store
    store.close()


@pytest.fixture
async def client(store: Store) -> AsyncIterator[httpx.AsyncClient]:
    """Asks the page over the store, which is open to all."""
    async with asking(make_application(store, Access())) as client:
        yield client


def asking(app: Callable[..., Any], **options: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", **options)


class Element:
    """An element of a page: its attributes, its children, and their text."""

    def __init__(self, tag: str, attributes: dict[str, str]) -> None:
        self.tag = tag
        self.attributes = attributes
        self.children: list[Element | str] = []

    @property
    def text(self) -> str:
        parts = (child if isinstance(child, str) else child.text for child in self.children)
        return "".join(parts)

    def all(self, tag: str, **attributes: str) -> list[Element]:
        """Every element in this one with the tag and these attributes (``class_`` is one of its classes)."""
        return [one for one in self.walk() if one.tag == tag and one.has(attributes)]

    def one(self, tag: str, **attributes: str) -> Element:
        found = self.all(tag, **attributes)
        assert len(found) == 1, f"{len(found)} {tag} with {attributes}"
        return found[0]

    def has(self, wanted: dict[str, str]) -> bool:
        if (name := wanted.get("class_")) and name not in self.attributes.get("class", "").split():
            return False
        rest = {key.replace("_", "-"): value for key, value in wanted.items() if key != "class_"}
        return all(self.attributes.get(key) == value for key, value in rest.items())

    def walk(self) -> Iterator[Element]:
        for child in self.children:
            if isinstance(child, Element):
                yield child
                yield from child.walk()


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not any("<bdi>" in (value or "") for _, value in attrs), f"markup in an attribute: {attrs}"
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].children.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def read(html: str) -> Element:
    """The page as a tree; its tags are closed in the order in which they were opened."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert len(reader.open) == 1, f"<{reader.open[-1].tag}> is never closed"
    return reader.root


async def get(client: httpx.AsyncClient, path: str, **query: Any) -> Element:
    """The page at this path."""
    answer = await client.get(path, params=query or None)
    assert answer.status_code == 200, answer.text
    return read(answer.text)
