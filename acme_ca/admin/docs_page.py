"""The page at /api/docs: the OpenAPI document for people. One file without scripts, made at the start."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from itertools import groupby
from typing import Any

Schema = Mapping[str, Any]

STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 18%, transparent) }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 62rem; padding: 1.5rem }
h1 { font-size: 1.6rem } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line) }
code, pre { font: 13px/1.45 ui-monospace, monospace }
pre { overflow-x: auto; padding: .6rem .8rem; border: 1px solid var(--line); border-radius: 6px }
details { border: 1px solid var(--line); border-radius: 6px; margin: .5rem 0; padding: .3rem .8rem }
summary { cursor: pointer } summary b { display: inline-block; min-width: 4.2rem }
summary i { font-style: normal; opacity: .75 }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; vertical-align: top; padding: .2rem .6rem .2rem 0 }
tr + tr td { border-top: 1px solid var(--line) } nav a { margin-right: .8rem; white-space: nowrap }
details > div { scroll-margin-top: 3.5rem }
"""


def html(document: Schema) -> str:
    operations = [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    operations.sort(key=lambda one: (one[2]["tags"][0], one[1], one[0]))
    tags = {tag: list(some) for tag, some in groupby(operations, key=lambda one: one[2]["tags"][0])}
    info = document["info"]
    return "".join(
        [
            '<!doctype html><html lang="en"><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(info['title'])}</title><link rel=stylesheet href=docs.css>",
            f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{escape(info['description'])} ",
            'As a file for programs: <a href="openapi.json">openapi.json</a>.</p>',
            f"<p>Below <code>{escape(document['servers'][0]['url'])}</code>, with ",
            "<code>Authorization: Bearer TOKEN</code>.</p>",
            "<nav>"
            + " ".join(f'<a href="#{escape(tag)}">{escape(tag)}</a>' for tag in (*tags, "schemas"))
            + "</nav>",
            *(_tag(tag, some, document) for tag, some in tags.items()),
            "<h2 id=schemas>Schemas</h2>",
            *(_schema(name, schema) for name, schema in sorted(document["components"]["schemas"].items())),
            "</html>",
        ]
    )


def _tag(tag: str, operations: list[tuple[str, str, Schema]], document: Schema) -> str:
    body = "".join(_operation(method, path, operation, document) for method, path, operation in operations)
    return f'<h2 id="{escape(tag)}">{escape(tag)}</h2>{body}'


def _operation(method: str, path: str, operation: Schema, document: Schema) -> str:
    rows = "".join(_parameter(parameter) for parameter in operation["parameters"])
    name = escape(operation["operationId"])
    return "".join(
        [
            f"<details><summary><b>{method}</b> <code>{escape(path)}</code> ",
            # The id is inside: then a link to it opens what it is in.
            f'<i>{escape(operation["summary"])}</i></summary><div id="{name}"><p>{_text(operation["description"])}</p>',
            f"<table>{rows}</table>" if rows else "",
            *_body(operation),
            "<table>",
            *(_response(status, answer) for status, answer in operation["responses"].items()),
            "</table>",
            f"<pre>{escape(_example(method, path, operation, document))}</pre></div></details>",
        ]
    )


def _parameter(parameter: Schema) -> str:
    kind = _kind(parameter["schema"])
    what = parameter.get("description", "")
    return f"<tr><td><code>{escape(parameter['name'])}</code><td>{parameter['in']}<td>{kind}<td>{_text(what)}"


def _body(operation: Schema) -> Iterator[str]:
    if "requestBody" in operation:
        (content,) = operation["requestBody"]["content"].values()
        yield f"<p>Body: {_kind(content['schema'])}</p>"


def _response(status: str, answer: Schema) -> str:
    kinds = ", ".join(_kind(content["schema"]) for content in answer.get("content", {}).values())
    return f"<tr><td>{status}<td>{_text(answer['description'])}<td>{kinds}"


def _schema(name: str, schema: Schema) -> str:
    required = schema.get("required", ())
    rows = "".join(
        f"<tr><td><code>{escape(field)}</code>{'' if field in required else ' (optional)'}"
        f"<td>{_kind(one)}<td>{_text(one.get('description', ''))}"
        for field, one in schema.get("properties", {}).items()
    )
    values = ", ".join(f"<code>{escape(str(value))}</code>" for value in schema.get("enum", ()))
    what = _text(schema.get("description", ""))
    return (
        f'<details><summary><code>{escape(name)}</code></summary><div id="{escape(name)}"><p>{what} {values}</p>'
        f"<table>{rows}</table></div></details>"
    )


def _kind(schema: Schema) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(map(_kind, schema["anyOf"]))
    if "enum" in schema:
        return ", ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    return escape(str(schema.get("format") or schema.get("const") or schema.get("type", "anything")))


def _text(text: str) -> str:
    """Escaped; what is in backquotes is code."""
    parts = escape(" ".join(text.split())).split("`")
    return "".join(f"<code>{part}</code>" if place % 2 else part for place, part in enumerate(parts))


def _example(method: str, path: str, operation: Schema, document: Schema) -> str:
    line = f"curl {'' if method == 'GET' else f'-X {method} '}{document['servers'][0]['url']}{path}"
    if operation["security"]:
        line += ' -H "Authorization: Bearer $ACME_CA_TOKEN"'
    if "requestBody" in operation:
        (content,) = operation["requestBody"]["content"].values()
        reference = content["schema"].get("$ref", "").rpartition("/")[2]
        fields = document["components"]["schemas"].get(reference, {})
        wanted = dict.fromkeys(fields.get("required", ()), "…")
        line += f" \\\n  -H 'Content-Type: application/json' -d '{json.dumps(wanted, ensure_ascii=False)}'"
    return line
