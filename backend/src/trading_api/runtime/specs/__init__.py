"""What is generated from the built modules: specs per module and version, tables for the docs.

Everything here is a function from declarations to text; ``write_files`` and ``find_differences``
alone touch the disk. Nothing needs a server, a database or the bus, and nothing is written when a
process starts.
"""

from trading_api.runtime.specs.files import find_differences, write_files
from trading_api.runtime.specs.responses import find_undeclared_responses
from trading_api.runtime.specs.specs import SpecSource, spec_files
from trading_api.runtime.specs.tables import (
    events_table,
    fill_section,
    modules_table,
    settings_classes,
    settings_table,
)

__all__ = [
    "SpecSource",
    "events_table",
    "fill_section",
    "find_differences",
    "find_undeclared_responses",
    "modules_table",
    "settings_classes",
    "settings_table",
    "spec_files",
    "write_files",
]
