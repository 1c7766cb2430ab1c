from __future__ import annotations

import os
from pathlib import Path

import pytest

from wherefrom.source.facts import UnreadableError, read_text


def test_reads_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"caf\xe9")
    assert read_text(str(tmp_path / "f"), 10) == "caf\udce9"


def test_reads_up_to_the_limit_and_no_further(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    assert read_text(str(tmp_path / "f"), 5) == "12345"
    with pytest.raises(UnreadableError, match="larger than 4 bytes"):
        read_text(str(tmp_path / "f"), 4)


def test_says_why_a_file_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    for name, reason in [
        ("missing", "No such file"),
        ("loop", "symbolic links"),
        ("pipe", "not a regular file"),
        (".", "directory"),
        ("nul\0", "null"),
    ]:
        with pytest.raises(UnreadableError, match=reason):
            read_text(str(tmp_path / name), 10)


def test_a_device_is_not_read() -> None:
    with pytest.raises(UnreadableError, match="not a regular file"):
        read_text("/dev/zero", 10)
