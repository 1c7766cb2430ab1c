"""SQL functions for SQLite."""

from __future__ import annotations

import pytest

from wherefrom.exceptions import MissingExtraError
from wherefrom.query.regex import compile_pattern


def test_without_re2_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "re2", None)
    with pytest.raises(MissingExtraError, match=r"RLIKE needs .* 'wherefrom\[regex\]'"):
        compile_pattern("never compiled before")
