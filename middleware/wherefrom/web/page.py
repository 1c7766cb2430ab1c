"""What a page is: a path, what it can be asked, a function that answers, and a template that shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ..client import TraceClient
from ..stores import Store
from .parameters import Parameter, Parameters

EXPERIMENT: Final = Parameter(
    "experiment", "The experiment to look at, by name; all of them by default.", most=250
)


@dataclass(frozen=True, slots=True)
class Reader:
    """What a view reads: the store, and the experiment that was asked for (``None``: all)."""

    store: Store
    experiment: str | None = None

    @property
    def client(self) -> TraceClient:
        """The client for the store."""
        return TraceClient(self.store)


@dataclass(frozen=True, slots=True)
class File:
    """What a download is: its name, without suffix, and its content."""

    name: str
    content: str | bytes


@dataclass(frozen=True, slots=True)
class Download:
    """A file made of what a page shows, at the page's path and ``.suffix``."""

    suffix: str
    media_type: str
    make: Callable[[Reader, Parameters], File]
    summary: str


View = Callable[[Reader, Parameters], Any]
"""Answers a request; runs in a thread. What it returns is a frozen dataclass: the JSON twin is that."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page, at ``path``, and its JSON twin, at ``path`` + ``.json``.

    ``view`` answers with an ``answer``, a dataclass whose annotations are the twin's schema. ``template``
    is given it as ``view``; without one there is the twin alone. ``title`` puts the page into the
    navigation. ``parts`` are views that the template calls by name when it comes to them
    (``parts.facets()``), so that what was quick to find is on its way before what is slow. Where the whole
    is slow, ``early`` is what the template is given as ``view``, and the whole is ``parts.whole()``.
    ``context`` gives the template more by name, made of the parameters. With
    ``shows_failures`` the template itself shows what is wrong with a request, as ``failure``: ``view`` is
    ``None`` then. Every page takes ``experiment`` besides its ``parameters``.
    """

    path: str
    view: View
    answer: type
    summary: str
    template: str | None = None
    parameters: tuple[Parameter, ...] = ()
    title: str | None = None
    parts: Mapping[str, View] = field(default_factory=dict)
    early: View | None = None
    downloads: tuple[Download, ...] = ()
    context: Callable[[Parameters], Mapping[str, Any]] = lambda _: {}
    shows_failures: bool = False

    @property
    def table(self) -> tuple[Parameter, ...]:
        """Every parameter that the page takes."""
        return (*self.parameters, EXPERIMENT)


@dataclass(frozen=True, slots=True)
class Action:
    """What a form of ours changes, by POST to ``path``; ``act`` says which page of ours to show then."""

    path: str
    act: Callable[[Reader, Parameters, Mapping[str, str]], str]
    parameters: tuple[Parameter, ...] = ()

    @property
    def table(self) -> tuple[Parameter, ...]:
        """Every parameter that the action takes besides the form."""
        return (*self.parameters, EXPERIMENT)
