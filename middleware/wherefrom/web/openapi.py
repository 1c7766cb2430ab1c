"""The OpenAPI document of the JSON twins, made from the tables that check requests and the views' types."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import Any, Final

from pydantic import TypeAdapter

from .auth import SESSION_COOKIE
from .failures import STATUSES, Failure
from .page import Download, Page
from .pages import PAGES
from .parameters import MAX_REPEATS, MAX_TEXT, Kind, Parameter

_SCHEMAS: Final = "#/components/schemas/"
_MODE: Final = "serialization"
_TYPES: Final = {
    Kind.TEXT: "string",
    Kind.INTEGER: "integer",
    Kind.NUMBER: "number",
    Kind.FLAG: "boolean",
}
_REFUSALS: Final = (400, 401, 403, 404, 503, 504)
_LACKING: Final = 501


def make_document(root: str) -> dict[str, Any]:
    """The document for the pages, mounted at ``root``."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Wherefrom",
            "version": version("wherefrom"),
            "description": "What the pages show, as JSON: each at the address of its page and `.json`.",
        },
        "servers": [{"url": root or "/"}],
        "security": [{}, {"token": []}, {"cookie": []}],
        **_content(),
    }


@functools.cache
def _content() -> dict[str, Any]:
    references, definitions = _schemas(page.answer for page in PAGES)
    paths: dict[str, Any] = {}
    for page in PAGES:
        paths[f"{page.path}.json"] = {"get": _operation(page, page.summary, _json(references[page.answer]))}
        for one in page.downloads:
            paths[f"{page.path}.{one.suffix}"] = {"get": _operation(page, one.summary, _file(one), _LACKING)}
    ways = {
        "token": {"type": "http", "scheme": "bearer"},
        "cookie": {"type": "apiKey", "in": "cookie", "name": SESSION_COOKIE},
    }
    return {"paths": paths, "components": {"schemas": definitions, "securitySchemes": ways}}


def _schemas(answers: Iterable[type]) -> tuple[dict[type, Any], dict[str, Any]]:
    """Where each answer's schema is, and all the schemas."""
    adapters: dict[type, TypeAdapter[Any]] = {kind: TypeAdapter(kind) for kind in (*answers, Failure)}
    inputs = [(kind.__name__, _MODE, adapter) for kind, adapter in adapters.items()]
    found, definitions = TypeAdapter.json_schemas(inputs, ref_template=f"{_SCHEMAS}{{model}}")  # type: ignore[arg-type] # the mode is a literal
    return {kind: found[kind.__name__, _MODE] for kind in adapters}, definitions["$defs"]


def _operation(page: Page, summary: str, content: Mapping[str, Any], *more: int) -> dict[str, Any]:
    return {
        "summary": summary,
        "parameters": [_parameter(one) for one in page.table],
        "responses": {
            "200": {"description": "What was asked for.", "content": content},
            **{str(status): _failure(status) for status in (*_REFUSALS, *more)},
        },
    }


def _failure(status: int) -> dict[str, Any]:
    return {"description": STATUSES[status], "content": _json({"$ref": f"{_SCHEMAS}Failure"})}


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _file(download: Download) -> dict[str, Any]:
    return {download.media_type: {"schema": {"type": "string"}}}


def _parameter(one: Parameter) -> dict[str, Any]:
    return {
        "name": one.name,
        "in": "path" if one.in_path else "query",
        "required": one.in_path,
        "description": one.help,
        "schema": _schema(one),
    }


def _schema(one: Parameter) -> dict[str, Any]:
    item = {"type": _TYPES[one.kind], **dict(_limits(one))}
    if one.many:
        return {"type": "array", "items": item, "maxItems": MAX_REPEATS}
    return item if one.default is None else {**item, "default": one.default}


def _limits(one: Parameter) -> Iterator[tuple[str, Any]]:
    if one.choices:
        yield "enum", list(one.choices)
    elif one.kind is Kind.TEXT:
        if one.in_path:
            yield "minLength", 1
        yield "maxLength", one.most or MAX_TEXT
        if one.pattern is not None:
            yield "pattern", f"^({one.pattern})?$"
    elif one.kind is not Kind.FLAG:
        bounds = (("minimum", one.least), ("maximum", one.most))
        yield from ((name, bound) for name, bound in bounds if bound is not None)
