"""The AsyncAPI 3.0 document of a socket, from the same declarations that serve it.

Source: the AsyncAPI specification 3.0.0. Actions are the server's: it receives ``subscribe`` and
sends ``update``.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from trading_api import __version__
from trading_api.runtime.http.access import Access
from trading_api.runtime.http.problems import Problem
from trading_api.runtime.ws.channel import Channel, EventChannel
from trading_api.runtime.ws.limits import Limits

ASYNCAPI_VERSION = "3.0.0"
_SOCKET = "#/channels/socket"
_SCHEMAS = "#/components/schemas/"

Json = dict[str, Any]


def asyncapi_of(module: str, version: str, channels: Sequence[Channel[Any]]) -> Json:
    """Return the document of one version of a module's socket.

    Args:
        module: names the socket's path and the document.
        version: of the API, ``v1``.
        channels: what the socket serves.
    """
    schemas = _Schemas(channels)
    messages: dict[str, Json] = {}
    operations: dict[str, Json] = {}
    for channel in channels:
        _add_channel(channel, schemas, messages, operations)
    _add_common(messages, operations)
    return {
        "asyncapi": ASYNCAPI_VERSION,
        "info": {
            "title": f"{module} {version}",
            "version": __version__,
            "description": _description(),
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "platform": {
                "host": "{host}",
                "protocol": "wss",
                "description": "the platform's public address",
                "variables": {"host": {"default": "localhost:8000"}},
                "security": [
                    {"$ref": "#/components/securitySchemes/bearer"},
                    {"$ref": "#/components/securitySchemes/apiKey"},
                    {"$ref": "#/components/securitySchemes/cookie"},
                ],
            }
        },
        "channels": {
            "socket": {
                "address": f"/api/{version}/{module}/ws",
                "title": f"{module}'s socket",
                "description": "one connection carries every route of the module",
                "servers": [{"$ref": "#/servers/platform"}],
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
            }
        },
        "operations": operations,
        "components": {
            "messages": messages,
            "schemas": schemas.definitions,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "header, subprotocols `trading.v1, bearer.<token>`, or `auth`",
                },
                "apiKey": {"type": "httpApiKey", "in": "header", "name": "X-API-Key"},
                "cookie": {
                    "type": "httpApiKey",
                    "in": "cookie",
                    "name": "access_token",
                    "description": "named __Host-access_token where cookies are secure; "
                    "from an allowed origin only",
                },
            },
        },
    }


class _Schemas:
    """JSON schemas of every model, named once."""

    def __init__(self, channels: Sequence[Channel[Any]]) -> None:
        wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = [(Problem, "serialization")]
        for channel in channels:
            wanted += [(channel.params, "validation"), (channel.update, "serialization")]
        self._references, document = models_json_schema(
            list(dict.fromkeys(wanted)), ref_template=_SCHEMAS + "{model}"
        )
        self.definitions: Json = document.get("$defs", {})

    def of(self, model: type[BaseModel], mode: JsonSchemaMode) -> Json:
        """Return a reference to a model's schema."""
        return dict(self._references[model, mode])

    def with_recover(self, channel: Channel[Any]) -> Json:
        """Return the parameters with ``recover`` beside them, where the route can resume."""
        reference = self.of(channel.params, "validation")
        name = str(reference["$ref"]).removeprefix(_SCHEMAS)
        schema: Json = deepcopy(self.definitions[name])
        properties = schema.setdefault("properties", {})
        properties["recover"] = {
            "type": "object",
            "description": "where the client stood on this topic; it gets what it missed",
            "properties": {
                "epoch": {"type": "string", "maxLength": 128},
                "offset": {"type": "integer", "minimum": 0},
            },
            "required": ["epoch", "offset"],
            "additionalProperties": False,
        }
        return schema


def _add_channel(
    channel: Channel[Any],
    schemas: _Schemas,
    messages: dict[str, Json],
    operations: dict[str, Json],
) -> None:
    route = channel.route
    topic = {"type": "string", "description": "names the subscription; as the server spells it"}
    place: Json = {"epoch": {"type": "string"}, "recovered": {"type": "boolean"}}
    if isinstance(channel, EventChannel):
        place["offset"] = {
            "type": "integer",
            "description": "where the topic stands; the next frame's previous_offset",
        }
    error = {"error": {"$ref": _SCHEMAS + "Problem"}}
    messages[f"{route}.subscribe"] = _message(f"{route}.subscribe", schemas.with_recover(channel))
    messages[f"{route}.subscribe.response"] = _message(
        f"{route}.subscribe.response", _status({"topic": topic, **place, **error})
    )
    messages[f"{route}.unsubscribe"] = _message(
        f"{route}.unsubscribe", schemas.of(channel.params, "validation")
    )
    messages[f"{route}.unsubscribe.response"] = _message(
        f"{route}.unsubscribe.response", _status({"topic": topic, **error})
    )
    messages[f"{route}.update"] = _message(
        f"{route}.update",
        _update(channel, topic, schemas),
        description=_first_line(channel),
        has_id=False,
    )
    access = {"x-access": _access_text(channel.access)}
    for verb in ("subscribe", "unsubscribe"):
        operations[f"{route}.{verb}"] = {
            **_operation("receive", f"{route}.{verb}", reply=f"{route}.{verb}.response"),
            "summary": f"{verb} {route}: {_first_line(channel)}",
            **access,
        }
    operations[f"{route}.update"] = {
        **_operation("send", f"{route}.update"),
        "summary": _first_line(channel),
    }


def _update(channel: Channel[Any], topic: Json, schemas: _Schemas) -> Json:
    update = schemas.of(channel.update, "serialization")
    is_ordered = isinstance(channel, EventChannel)
    snapshot: Json = {
        "topic": topic,
        "snapshot": {"const": True, "description": "the state; forget what was before"},
        "payload": {"anyOf": [update, {"type": "array", "items": update}]}
        if is_ordered
        else update,
    }
    change: Json = {"topic": topic, "payload": update}
    if is_ordered:
        snapshot |= {"epoch": {"type": "string"}, "offset": {"type": "integer"}}
        change |= {
            "offset": {"type": "integer", "description": "number of this event in its stream"},
            "previous_offset": {
                "type": "integer",
                "description": "offset of the frame before on this topic; "
                "another one than the last seen means a hole",
            },
        }
    return {"oneOf": [_object(snapshot), _object(change)]}


def _add_common(messages: dict[str, Json], operations: dict[str, Json]) -> None:
    problem = {"$ref": _SCHEMAS + "Problem"}
    token = _object({"token": {"type": "string", "maxLength": 8192}})
    answer = _status({"expires_at": {"type": "integer", "description": "Unix seconds"},
                      "error": problem})  # fmt: skip
    empty = {"type": "object"}
    messages["ping"] = _message("ping", empty)
    messages["pong"] = _message("pong", empty)
    operations["ping"] = _operation("receive", "ping", reply="pong")
    for name, summary in (
        ("auth", "sign in on a socket opened without a credential, within 10 seconds"),
        ("auth.refresh", "go on with a new token of the same user"),
    ):
        messages[name] = _message(name, token)
        messages[f"{name}.response"] = _message(f"{name}.response", answer)
        operations[name] = {
            **_operation("receive", name, reply=f"{name}.response"),
            "summary": summary,
        }
    messages["auth.expired"] = _message(
        "auth.expired", _object({"grace_seconds": {"type": "number"}}), has_id=False
    )
    messages["error"] = _message("error", problem)
    operations["auth.expired"] = {
        **_operation("send", "auth.expired"),
        "summary": "the token has expired; send auth.refresh in time, else close 4401",
    }
    operations["error"] = {
        **_operation("send", "error"),
        "summary": "a message that no operation answers: unreadable, unknown, too many",
    }


def _message(
    name: str, payload: Json, *, description: str | None = None, has_id: bool = True
) -> Json:
    properties: Json = {"type": {"const": name}, "payload": payload}
    if has_id:
        properties["id"] = {
            "type": ["string", "integer"],
            "description": "of the client's choice; the response echoes it",
        }
    found: Json = {
        "name": name,
        "title": name,
        "contentType": "application/json",
        "payload": {
            "type": "object",
            "properties": properties,
            "required": ["type", "payload"],
            "additionalProperties": False,
        },
    }
    if description is not None:
        found["summary"] = description
    return found


def _operation(action: str, message: str, *, reply: str | None = None) -> Json:
    found: Json = {
        "action": action,
        "channel": {"$ref": _SOCKET},
        "messages": [{"$ref": f"{_SOCKET}/messages/{message}"}],
    }
    if reply is not None:
        found["reply"] = {
            "channel": {"$ref": _SOCKET},
            "messages": [{"$ref": f"{_SOCKET}/messages/{reply}"}],
        }
    return found


def _status(properties: Mapping[str, Any]) -> Json:
    return {
        "type": "object",
        "properties": {
            "status": {"enum": ["ok", "error"]},
            "message": {"type": "string"},
            **properties,
        },
        "required": ["status", "message"],
        "additionalProperties": False,
    }


def _object(properties: Mapping[str, Any]) -> Json:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def _first_line(channel: Channel[Any]) -> str:
    return (type(channel).__doc__ or channel.route).strip().splitlines()[0]


def _access_text(access: Access) -> str:
    if access.needed_scope is not None:
        return f"scope {access.needed_scope}"
    if access.one_of_roles:
        return f"role {' or '.join(sorted(access.one_of_roles))}"
    return access.kind


def _description() -> str:
    limits = Limits()
    return (
        'Envelope both ways: `{"type": operation, "payload": {…}}`, JSON text, with an optional '
        "`id` that the response echoes. A subscription answers, then sends the state "
        "(`snapshot: true`), then changes. "
        f"Limits: {limits.message_size_max} bytes a message, {limits.topics_max} topics, "
        f"{limits.messages_per_second_max} messages a second, "
        f"{limits.sockets_per_user_max} sockets a user. "
        "Close codes: 1003 and 1007 unreadable, 1008 policy, 1009 too long, 1011 server fault, "
        "1012 restart, 4008 reads too slowly, 4401 credential refused or ended, "
        "4408 no credential in time, 4429 too many messages."
    )
