"""Verbs that datafeed brings to the command line."""

from trading_api.modules.datafeed.commands.conformance.command import ConformanceCommand
from trading_api.modules.datafeed.commands.imports import ImportCommand

__all__ = ["ConformanceCommand", "ImportCommand"]
