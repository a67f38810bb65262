"""The page that shows an AsyncAPI document: plain HTML, no script."""

from collections.abc import Mapping
from functools import cache
from html import escape
from typing import Any

import orjson
from starlette.responses import HTMLResponse

from trading_api.runtime.http.documents import hash_source

_REFERENCE_STYLE = (
    ":root{color-scheme:light dark}"
    "body{margin:0;font:16px/1.5 system-ui,sans-serif}"
    "main{max-width:60rem;margin:0 auto;padding:2rem 1rem 4rem}"
    "section{border-top:1px solid #8884;margin-top:2rem}"
    "pre{overflow-x:auto;background:#8882;padding:1rem;border-radius:.5rem;font-size:.875rem}"
    "summary{cursor:pointer;padding:.25rem 0}"
)


def asyncapi_page(document: Mapping[str, Any], *, title: str, document_url: str) -> HTMLResponse:
    """Return the WebSocket reference of an AsyncAPI 3 document; plain HTML without a script."""
    style, policy = _reference_style()
    channels = "".join(
        _channel_section(name, channel, document)
        for name, channel in document.get("channels", {}).items()
    )
    body = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(title)}: WebSockets</title>"
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><style>{style}</style></head><body><main>'
        f"<h1>{escape(title)}: WebSockets</h1>"
        f"<p>{escape(str(document.get('info', {}).get('description', '')))}</p>"
        f'<p><a href="{escape(document_url)}">asyncapi.json</a> · <a href="/">start</a></p>'
        f"{channels or '<p>There is no socket here.</p>'}"
        f"</main></body></html>"
    )
    return HTMLResponse(
        body, headers={"Content-Security-Policy": policy, "Cache-Control": "no-cache"}
    )


@cache
def _reference_style() -> tuple[str, str]:
    policy = (
        f"default-src 'none'; style-src {hash_source(_REFERENCE_STYLE)}; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return _REFERENCE_STYLE, policy


def _channel_section(name: str, channel: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    messages = "".join(
        _message_section(key, _resolve(message, document), document)
        for key, message in channel.get("messages", {}).items()
    )
    directions = "".join(
        f"<li>{escape(_DIRECTIONS.get(str(operation.get('action')), ''))} "
        f"<code>{escape(_message_of(operation))}</code> "
        f"{escape(str(operation.get('summary') or ''))}</li>"
        for operation in document.get("operations", {}).values()
        if operation.get("channel", {}).get("$ref") == f"#/channels/{name}"
    )
    return (
        f'<section id="{escape(name)}"><h2>{escape(str(channel.get("title") or name))}</h2>'
        f"<p><code>{escape(str(channel.get('address') or ''))}</code></p>"
        f"<p>{escape(str(channel.get('description') or ''))}</p>"
        f"<ul>{directions}</ul>{messages}</section>"
    )


# AsyncAPI speaks from the server's side.
_DIRECTIONS = {"send": "the server sends", "receive": "the client sends"}


def _message_of(operation: Mapping[str, Any]) -> str:
    references = [str(each.get("$ref", "")) for each in operation.get("messages", ())]
    return ", ".join(each.rpartition("/")[2] for each in references)


def _message_section(name: str, message: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    payload = _resolve(message.get("payload", {}), document)
    shown = orjson.dumps(payload, option=orjson.OPT_INDENT_2).decode()
    return (
        f"<details><summary><code>{escape(str(message.get('name') or name))}</code> "
        f"{escape(str(message.get('summary') or ''))}</summary>"
        f"<pre>{escape(shown)}</pre></details>"
    )


def _resolve(value: Any, document: Mapping[str, Any]) -> Any:
    """Follow one chain of references; what leads nowhere is shown as it stands."""
    for _ in range(8):
        reference = value.get("$ref") if isinstance(value, Mapping) else None
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return value
        found: Any = document
        for part in reference[2:].split("/"):
            key = part.replace("~1", "/").replace("~0", "~")
            found = found.get(key) if isinstance(found, Mapping) else None
        if found is None:
            return value
        value = found
    return value
