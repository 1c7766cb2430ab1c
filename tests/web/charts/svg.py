"""Charts, read back as XML."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree as ET

from markupsafe import Markup

from wherefrom.web.charts.svg import Drawing, element

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "</text><script>alert(1)</script>\"' onload=x &amp; \u202e\x00\ufffe" + "y" * 300


def parse(drawn: Drawing | Markup | str) -> ET.Element:
    """The root of a chart, or of loose elements."""
    text = drawn.__html__() if isinstance(drawn, Drawing) else str(element("svg", drawn))
    return ET.fromstring(text)


def named(root: ET.Element, name: str) -> list[ET.Element]:
    return [one for one in root.iter() if one.tag.removeprefix(SVG) == name]


def with_class(root: ET.Element, name: str) -> list[ET.Element]:
    return [one for one in root.iter() if name in (one.get("class") or "").split()]


def texts(root: ET.Element) -> list[str]:
    return [one.text or "" for one in named(root, "text")]


def number(value: str | None) -> float:
    """Of a percentage or a plain number."""
    assert value is not None
    return float(value.removesuffix("%"))


def numbers(elements: list[ET.Element], name: str) -> Iterator[float]:
    return (number(one.get(name)) for one in elements)
