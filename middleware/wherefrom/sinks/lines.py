"""Exporters that write lines: JSON lines to a file, a summary to the console."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from errno import ENOSPC
from typing import TextIO

from .. import keys
from .._permissions import data_path, open_private
from ..exceptions import SettingsError, StoreUnavailableError
from ..model import Trace
from .base import Sink


class JsonLinesSink:
    """Appends each trace to a file as one line of MLflow's trace JSON; several processes may share it.

    A leading ``~`` in ``path`` is the home directory.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = data_path(path)

    def write(self, traces: Sequence[Trace]) -> None:
        """Append the traces in one write; of what does not fit, no torn line stays.

        Raises:
            StoreUnavailableError: the disk is full, the folder is missing: try again.
        """
        lines = "".join(trace.to_json() + "\n" for trace in traces).encode()
        try:
            with open(self.path, "ab", buffering=0, opener=open_private) as file:
                written = file.write(lines) or 0
                if written < len(lines):
                    file.truncate(file.tell() - written)
                    raise OSError(ENOSPC, "only a part of the traces fitted")
        except OSError as error:
            raise StoreUnavailableError(f"{self.path}: {error}") from error

    def check(self, _experiment: str) -> str:
        """Return a sentence that the file can be written, without writing to it; the argument is not used.

        Raises:
            StoreUnavailableError: it cannot.
        """
        target = self.path if self.path.exists() else self.path.parent
        if not target.exists():
            raise StoreUnavailableError(f"{self.path} cannot be written: there is no folder {target}")
        if not os.access(target, os.W_OK):
            raise StoreUnavailableError(f"{self.path} cannot be written: this user cannot write to {target}")
        return "writable"


class ConsoleSink:
    """Prints one line a trace, to standard error unless ``stream`` says otherwise."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def write(self, traces: Sequence[Trace]) -> None:
        """Print the traces."""
        stream = self._stream or sys.stderr
        stream.write("".join(_line(trace) + "\n" for trace in traces))
        stream.flush()


def open_exporter(target: str) -> Sink:
    """The exporter of one entry of the setting ``export``.

    Raises:
        SettingsError: no exporter has that form, or the home directory is unknown.
    """
    if target == "console:":
        return ConsoleSink()
    scheme, separator, path = target.partition(":///")
    if scheme == "jsonl" and separator and path:
        try:
            return JsonLinesSink(path)
        except ValueError as error:  # no home directory
            raise SettingsError(f"WHEREFROM_EXPORT={target!r}: {error}") from None
    raise SettingsError(f"WHEREFROM_EXPORT={target!r} cannot be used: it takes jsonl:///file or console:")


def _line(trace: Trace) -> str:
    info = trace.info
    moment = datetime.fromtimestamp(info.request_time / 1000, UTC)
    facts = {
        "request": info.client_request_id,
        "session": info.trace_metadata.get(keys.SESSION),
        "user": info.trace_metadata.get(keys.USER),
        "version": info.trace_metadata.get(keys.APP_VERSION),
    }
    # repr keeps what a client sent from ending the line or colouring the terminal.
    known = " ".join(f"{key}={value!r}" for key, value in facts.items() if value)
    name = repr(info.name or "")[1:-1]
    duration = info.execution_duration or 0
    return f"{moment:%H:%M:%S} {info.state:<5} {duration:>6} ms  {name}  {known} {info.trace_id}"
