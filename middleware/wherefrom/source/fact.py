"""A metadata value together with where it came from, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAX_KEY_LENGTH: Final = 250
"""Characters of a metadata key; MLflow's own limit."""


@dataclass(frozen=True, slots=True)
class Fact:
    """What is known about one metadata key of the process.

    ``value`` is ``None`` when the key is absent. ``origin`` names where the value came from, such as
    ``env APP_VERSION``; ``note`` says why there is none, or what else is worth knowing about it.
    """

    key: str
    value: str | None
    origin: str = ""
    note: str = ""

    def cleaned(self, max_length: int) -> Fact:
        """The same fact, every text of it encodable and its value trimmed and cut to ``max_length``."""
        return Fact(
            clean(self.key, MAX_KEY_LENGTH),
            clean(self.value or "", max_length) or None,
            encodable(self.origin),
            encodable(self.note),
        )


def clean(text: str, max_length: int) -> str:
    """``text`` encodable, trimmed, and cut to ``max_length`` characters with ``...`` at the end."""
    text = encodable(text).strip()
    if len(text) <= max_length:
        return text
    return text[: max(0, max_length - 3)] + "..."[:max_length]


def encodable(text: str) -> str:
    r"""``text`` with lone surrogates (undecodable bytes of a path or variable) written as ``\udc..``."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
