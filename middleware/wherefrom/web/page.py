"""Pages: a path, its parameters, the view that answers, and the template that shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from ..alerts.alerting import Alerting
from ..query.forgiving import parse_search
from ..stores import Selection, Snapshot, Store
from .parameters import PageQuery


@dataclass(frozen=True)
class Reader:
    """What the views of a page read: one snapshot, and the traces that the query of the page selects.

    ``alerts`` are the rules and incidents of the settings.
    """

    snapshot: Snapshot
    query: PageQuery
    alerts: Alerting | None = None

    @cached_property
    def selection(self) -> Selection:
        """The traces that pass the filter, which is parsed once for all views.

        Raises:
            FilterError: the filter cannot be read.
        """
        tree = parse_search(getattr(self.query, "filter", None), self.snapshot.spelled_keys)
        experiment = self.query.experiment
        return Selection(tree, None if experiment is None else (experiment,))


@dataclass(frozen=True, slots=True)
class File:
    """A download: its name without suffix, and its content."""

    name: str
    content: str | bytes


API: Final = "/api/"
"""Where paths begin that are for programs only."""

View = Callable[[Reader, Any], Any]
"""Takes the reader and the query of its page; runs in a thread. Returns a dataclass: the JSON twin."""


@dataclass(frozen=True, slots=True)
class Download:
    """A file made from the data of a page, at the path of the page and ``.suffix``."""

    suffix: str
    media_type: str
    make: Callable[[Reader, Any], File]
    summary: str


def no_view(_reader: Reader, _query: PageQuery) -> None:
    """The early view of a page whose form needs no data."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page at ``path``, and its JSON twin at ``twin``: ``path`` + ``.json``, or an ``/api/`` path itself.

    ``view`` returns an ``answer``: a dataclass, whose annotations are the schema of the twin. The
    ``template`` gets it as ``view``; without a template there is only the twin. A page with a ``title``
    stands in the navigation. The template calls ``parts`` by name where it shows them (``parts.facets()``),
    so that the browser has the fast parts before the slow ones are read. Where ``view`` is slow, the
    template gets the result of ``early`` as ``view`` and calls ``parts.whole()``. ``context`` adds variables
    made from the query. ``opens`` may name another page and its parameters, which is shown instead.
    With ``shows_failures`` the template shows errors of the request as ``failure``, and
    ``view`` is ``None`` then. ``judge`` makes the twin a webhook, and says whether a
    POST is answered with 200. ``seconds`` is the deadline of the twin, if not that of a part of a page.
    With ``batches`` the twin is a file with a ``suffix``: each call takes the place after the last batch, at
    first ``None``, and returns a batch and the place after it, at the end ``None``. Each has a deadline of
    its own.
    """

    path: str
    view: View
    answer: type
    summary: str
    query: type[PageQuery] = PageQuery
    template: str | None = None
    title: str | None = None
    parts: Mapping[str, View] = field(default_factory=dict)
    early: View | None = None
    downloads: tuple[Download, ...] = ()
    context: Callable[[Any], Mapping[str, Any]] = lambda _: {}
    shows_failures: bool = False
    opens: Callable[[Reader, Any], tuple[str, dict[str, str]] | None] = lambda _reader, _query: None
    judge: Callable[[Any, Any], bool] | None = None
    seconds: float | None = None
    batches: Callable[[Reader, Any, Any], tuple[bytes, Any]] | None = None
    suffix: str = "jsonl"

    @property
    def twin(self) -> str:
        """The path of the JSON twin."""
        return self.path if self.path.startswith(API) else f"{self.path}.json"


@dataclass(frozen=True, slots=True)
class Action:
    """A form: ``act`` handles a POST to ``path`` and returns the path of the page to show next."""

    path: str
    act: Callable[[Store, Any, Mapping[str, str]], str]
    query: type[PageQuery] = PageQuery
