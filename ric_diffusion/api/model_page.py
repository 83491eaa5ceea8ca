"""An OpenAPI document as a page of plain HTML: no script, and nothing loaded from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

Schema = Mapping[str, Any]

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #1b1b1f; background: #fff; }
code, pre { font: 14px/1.5 ui-monospace, monospace; background: #f2f2f5; }
pre { padding: .75rem; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0;
         border-top: 1px solid #ddd; }
h2 { margin-top: 2.5rem; }
h2 code { font-size: inherit; }
@media (prefers-color-scheme: dark) {
  body { color: #e4e4e9; background: #1b1b1f; }
  code, pre { background: #2b2b31; }
  td, th { border-color: #444; }
  a { color: #9ab8ff; }
}
"""


@dataclass(frozen=True, kw_only=True)
class Page:
    """HTML with the headers that keep a browser from running or loading anything for it."""

    html: str
    headers: Mapping[str, str]


def page_of(document: Schema) -> Page:
    """The page of an OpenAPI document as FastAPI writes it: what to ask, and what is answered."""
    info = document["info"]
    title = f"{escape(info['title'])} {escape(info['version'])}"
    paths = "".join(
        _operation(document, method, path, operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    )
    html = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style><body><main><h1>{title}</h1><p>{_text(info['description'])}</p>"
        '<p>The same for programs: <a href="openapi.json">openapi.json</a>.</p>'
        f"{paths}</main></body></html>"
    )
    policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
    return Page(
        html=html,
        headers={"content-security-policy": policy, "x-content-type-options": "nosniff"},
    )


def _operation(document: Schema, method: str, path: str, operation: Schema) -> str:
    found = f"<h2><code>{method.upper()} {escape(path)}</code></h2>"
    found += f"<p>{_text(operation.get('description', ''))}</p>"
    if body := operation.get("requestBody"):
        schema = _named(document, body["content"]["application/json"]["schema"])
        found += f"<h3>Asked</h3>{_table(document, schema, schema.get('required', ()))}"
    content = operation["responses"]["200"].get("content", {})
    if "$ref" in (answer := content.get("application/json", {}).get("schema", {})):
        also = " With <code>Accept: image/png</code>: a PNG." if "image/png" in content else ""
        schema = _named(document, answer)
        found += f"<h3>Answered</h3><p>{_text(schema.get('description', ''))}{also}</p>"
        found += _table(document, schema, ())
    return found


def _table(document: Schema, schema: Schema, required: Collection[str]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(_kind(document, field))}</td>"
        f"<td>{_text(_about(field, name in required))}</td></tr>"
        for name, field in schema["properties"].items()
    )
    return f"<table><tr><th>field</th><th>is</th><th></th></tr>{rows}</table>"


def _about(field: Schema, required: bool) -> str:
    said = [field["description"]] if "description" in field else []
    if required:
        said.append("required")
    elif field.get("default") is not None:
        said.append(f"default {json.dumps(field['default'])}")
    return "; ".join(said)


def _kind(document: Schema, field: Schema) -> str:
    """A field's type and bounds in words."""
    if "$ref" in field:
        return "{" + ", ".join(_named(document, field)["properties"]) + "}"
    if "anyOf" in field:
        some = [one for one in field["anyOf"] if one.get("type") != "null"]  # it may be left out
        return " or ".join(_kind(document, one) for one in some)
    kind = str(field.get("type", "anything"))
    if kind == "array":
        kind = f"list of {_kind(document, field['items'])}"
    elif isinstance(values := field.get("additionalProperties"), dict):
        kind = f"{_kind(document, values)} by name"
    return ", ".join([kind, *_bounds(field)])


def _bounds(field: Schema) -> Iterator[str]:
    for key, words in (
        ("minimum", "from {}"),
        ("exclusiveMinimum", "above {}"),
        ("maximum", "to {}"),
        ("multipleOf", "in steps of {}"),
        ("maxLength", "{} characters at most"),
        ("maxItems", "{} at most"),
        ("maxProperties", "{} at most"),
    ):
        if key in field:
            yield words.format(field[key])


def _named(document: Schema, reference: Schema) -> Schema:
    """What a reference leads to."""
    schema: Schema = document["components"]["schemas"][reference["$ref"].rpartition("/")[2]]
    return schema


def _text(text: str) -> str:
    """Text with `code` in it, as HTML."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))
