#!/usr/bin/env python3
"""Writes what is generated from the code, or checks that it is current.

generate.py write    specs under docs/api, and the generated tables of the docs
generate.py check    exit 1 and name every file that a fresh run would change
generate.py responses    exit 1 and name every route without a response model
"""

import sys
import tempfile
from pathlib import Path

from trading_api.app import ProcessApp, create_app
from trading_api.runtime.registry import discover
from trading_api.runtime.secrets import ensure_secrets
from trading_api.runtime.settings import PlatformSettings, load_settings
from trading_api.runtime.specs import (
    events_table,
    fill_section,
    find_differences,
    find_undeclared_responses,
    modules_table,
    settings_classes,
    settings_table,
    spec_files,
    write_files,
)
from trading_api.runtime.specs.specs import SPEC_GLOB

DOCS = Path(__file__).resolve().parents[1] / "docs"


def compose() -> ProcessApp:
    """Compose every module in a host folder of its own; nothing is started."""
    with tempfile.TemporaryDirectory() as folder:
        # Not the developer's environment: what is generated must not depend on it.
        environ = {"TRADING_LOCAL_DIR": folder, "ENVIRONMENT": "development"}
        settings = load_settings(PlatformSettings, environ)
        modules = discover()
        ensure_secrets(settings.secrets_directory, modules=tuple(modules))
        return create_app(modules, settings=settings, environ=environ, process_name="specs")


def doc_files() -> dict[str, str]:
    """Return the documents that have a generated section, filled anew."""
    modules = discover()
    manifests = [module.manifest for module in modules.values()]
    sections = {
        "operations.md": {"settings": settings_table(settings_classes(modules))},
        "events.md": {"events": events_table(manifests)},
        "architecture.md": {"modules": modules_table(manifests)},
    }
    files = {}
    for name, contents in sections.items():
        text = (DOCS / name).read_text(encoding="utf-8")
        for section, content in contents.items():
            text = fill_section(text, section, content)
        files[name] = text
    return files


def main(arguments: list[str]) -> int:
    """Run one verb; return the exit code."""
    if arguments == ["write"]:
        changed = write_files(DOCS / "api", spec_files(compose()), owned=SPEC_GLOB)
        changed += write_files(DOCS, doc_files())
        for path in changed:
            sys.stdout.write(f"wrote {path.relative_to(DOCS.parent)}\n")
        return 0
    if arguments == ["check"]:
        stale = find_differences(DOCS / "api", spec_files(compose()), owned=SPEC_GLOB)
        stale += find_differences(DOCS, doc_files())
        for path in stale:
            sys.stdout.write(
                f"not current: {path.relative_to(DOCS.parent)} (run `make generate`)\n"
            )
        return 1 if stale else 0
    if arguments == ["responses"]:
        app = compose()
        found = [
            f"{module} {version}: {each}"
            for module, versions in app.versions().items()
            for version in versions
            for each in find_undeclared_responses(app.openapi(module, version))
        ]
        for each in found:
            sys.stdout.write(f"{each}\n")
        return 1 if found else 0
    sys.stderr.write(__doc__ or "")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
