"""Tables of the documentation that are made from the code: settings, events, modules."""

import importlib
import inspect
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from trading_api.contracts.envelope import Event
from trading_api.runtime.module import Manifest, Module
from trading_api.runtime.settings import BACKEND_DIRECTORY, OwnedSettings, PlatformSettings


def settings_classes(modules: Mapping[str, type[Module]]) -> list[type[OwnedSettings]]:
    """Return the platform's settings class and each module's, from its ``settings`` room."""
    found: list[type[OwnedSettings]] = [PlatformSettings]
    for module in modules.values():
        package = module.__module__.rpartition(".")[0]
        try:
            room = importlib.import_module(f"{package}.settings")
        except ModuleNotFoundError as error:
            if error.name != f"{package}.settings":
                raise
            continue
        found += [
            each
            for _, each in inspect.getmembers(room, inspect.isclass)
            if issubclass(each, OwnedSettings) and each.__module__ == room.__name__
        ]
    return found


def settings_table(classes: Iterable[type[OwnedSettings]]) -> str:
    """Return a Markdown table of every environment name, its kind, default and meaning."""
    lines = ["| name | kind | default | says |", "|---|---|---|---|"]
    for cls in classes:
        prefix = str(cls.model_config.get("env_prefix") or "").upper()
        for name, field in cls.model_fields.items():
            lines.append(
                f"| `{_environment_name(prefix, name, field)}` | {_kind(field.annotation)} "
                f"| {_default(field)} "
                f"| {_cell(field.description or '')} |"
            )
    return "\n".join(lines)


def modules_table(manifests: Iterable[Manifest]) -> str:
    """Return a Markdown table of the modules: what they own, where, what they publish."""
    lines = ["| module | owns | URLs | publishes | consumes |", "|---|---|---|---|---|"]
    for manifest in manifests:
        urls = ", ".join(f"`{each}`" for each in manifest.prefixes())
        lines.append(
            f"| `{manifest.name}` | {_cell(manifest.summary)} | {urls} "
            f"| {_types(manifest.publishes)} | {_types(manifest.consumes)} |"
        )
    return "\n".join(lines)


def events_table(manifests: Sequence[Manifest]) -> str:
    """Return a Markdown table of every event: version, producer, consumers, key fields."""
    producers: dict[str, list[str]] = defaultdict(list)
    consumers: dict[str, list[str]] = defaultdict(list)
    events: dict[str, type[Event]] = {}
    for manifest in manifests:
        for event in manifest.publishes:
            producers[event.TYPE].append(manifest.name)
            events[event.TYPE] = event
        for event in manifest.consumes:
            consumers[event.TYPE].append(manifest.name)
            events[event.TYPE] = event
    lines = [
        "| event | version | producer | consumers | says | data |",
        "|---|---|---|---|---|---|",
    ]
    for name in sorted(events):
        event = events[name]
        summary = (inspect.getdoc(event) or "").partition("\n\n")[0].replace("\n", " ")
        fields = ", ".join(f"`{each}`" for each in event.model_fields)
        lines.append(
            f"| `{name}` | {event.VERSION} | {', '.join(producers[name]) or 'none'} "
            f"| {', '.join(consumers[name]) or 'none'} | {_cell(summary)} | {fields} |"
        )
    return "\n".join(lines)


def fill_section(text: str, name: str, content: str) -> str:
    """Replace what stands between ``<!-- generated: name -->`` and ``<!-- end: name -->``.

    Raises:
        ValueError: the text has no such section.
    """
    pattern = re.compile(
        rf"(<!-- generated: {re.escape(name)} -->\n).*?(<!-- end: {re.escape(name)} -->)", re.DOTALL
    )
    filled, count = pattern.subn(lambda found: f"{found[1]}{content}\n{found[2]}", text)
    if count != 1:
        raise ValueError(f"the text has {count} sections generated: {name}")
    return filled


def _types(events: Sequence[type[Event]]) -> str:
    return ", ".join(f"`{event.TYPE}`" for event in events) or "none"


def _environment_name(prefix: str, name: str, field: FieldInfo) -> str:
    alias = field.validation_alias
    return alias.upper() if isinstance(alias, str) else f"{prefix}{name.upper()}"


def _kind(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Literal:
        return " \\| ".join(f"`{each}`" for each in get_args(annotation))
    if origin in (Union, UnionType):
        return " or ".join(_kind(each) for each in get_args(annotation) if each is not type(None))
    if annotation is SecretStr:
        return "secret"
    names = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _default(field: FieldInfo) -> str:
    default = field.default
    if default is PydanticUndefined and field.default_factory is None:
        return "required"
    if default is PydanticUndefined:
        return "by the host"
    if isinstance(default, SecretStr):
        return "none"
    if default is None or default == "":
        return "none"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, Path) and default.is_relative_to(BACKEND_DIRECTORY):
        return f"`backend/{default.relative_to(BACKEND_DIRECTORY).as_posix()}`"
    return f"`{_cell(str(default))}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
