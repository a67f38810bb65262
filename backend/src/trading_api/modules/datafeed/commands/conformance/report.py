"""A run as terminal table, HTML page, JSON, JUnit."""

import html
import json
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from xml.etree import ElementTree as ET

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trading_api.modules.datafeed.commands.conformance.rules import Result

_COLORS = {"passed": "green", "failed": "red", "skipped": "yellow"}

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; color: #222 }
table { border-collapse: collapse; width: 100% }
td, th { text-align: left; vertical-align: top; padding: .4rem .6rem }
tr { border-bottom: 1px solid #ddd }
.passed td:nth-child(2) { color: #1a7f37 } .failed td:nth-child(2) { color: #cf222e }
.skipped td:nth-child(2) { color: #9a6700 } code { overflow-wrap: anywhere }
"""


def summary_of(results: Sequence[Result]) -> str:
    """Return the counts in words."""
    counts = Counter(each.outcome for each in results)
    return ", ".join(f"{counts[name]} {name}" for name in ("passed", "failed", "skipped"))


def print_table(console: Console, results: Sequence[Result], *, url: str) -> None:
    """Print what a person wants to see: outcomes, and for failures what a chart would show."""
    table = Table(title=f"Conformance of {escape(url)}", title_justify="left")
    for column in ("test", "outcome", "seconds", "what was found"):
        table.add_column(column, justify="right" if column == "seconds" else "left")
    for each in results:
        text = escape(each.message)
        if each.outcome == "failed":
            text += f"\n[bold]A chart would show:[/] {escape(each.rule.shows)}"
        color = _COLORS[each.outcome]
        table.add_row(each.rule.name, f"[{color}]{each.outcome}[/]", f"{each.seconds:.2f}", text)
    console.print(table)
    console.print(summary_of(results))


def as_json(results: Sequence[Result], *, url: str, dialect: str, at: datetime) -> str:
    """Return the run as one JSON document."""
    return json.dumps(
        {
            "url": url,
            "dialect": dialect,
            "at": at.isoformat(),
            "summary": dict(Counter(each.outcome for each in results)),
            "tests": [
                {
                    "name": each.rule.name,
                    "outcome": each.outcome,
                    "message": each.message,
                    "seconds": round(each.seconds, 3),
                    **({"shows": each.rule.shows} if each.outcome == "failed" else {}),
                }
                for each in results
            ],
        },
        indent=1,
        ensure_ascii=False,
    )


def as_junit(results: Sequence[Result], *, url: str, dialect: str, at: datetime) -> str:
    """Return the run as JUnit's XML, one case per test."""
    counts = Counter(each.outcome for each in results)
    suite = ET.Element(
        "testsuite",
        name=f"conformance {dialect} {url}",
        tests=str(len(results)),
        failures=str(counts["failed"]),
        errors="0",
        skipped=str(counts["skipped"]),
        time=f"{sum(each.seconds for each in results):.3f}",
        timestamp=at.replace(tzinfo=None).isoformat(timespec="seconds"),
    )
    for each in results:
        case = ET.SubElement(
            suite,
            "testcase",
            name=each.rule.name,
            classname=f"conformance.{dialect}",
            time=f"{each.seconds:.3f}",
        )
        if each.outcome == "failed":
            failure = ET.SubElement(case, "failure", message=each.message)
            failure.text = f"A chart would show: {each.rule.shows}"
        elif each.outcome == "skipped":
            ET.SubElement(case, "skipped", message=each.message)
    return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def as_html(results: Sequence[Result], *, url: str, dialect: str, at: datetime) -> str:
    """Return the run as one page that needs nothing from elsewhere."""
    rows = []
    for each in results:
        text = f"<code>{html.escape(each.message)}</code>" if each.message else ""
        if each.outcome == "failed":
            text += f"<p><b>A chart would show:</b> {html.escape(each.rule.shows)}</p>"
        rows.append(
            f'<tr class="{each.outcome}"><td>{html.escape(each.rule.name)}</td>'
            f"<td>{each.outcome}</td><td>{each.seconds:.2f}</td><td>{text}</td></tr>"
        )
    title = f"Conformance of {html.escape(url)}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style><h1>{title}</h1>"
        f"<p>Dialect {dialect}, {at:%Y-%m-%d %H:%M:%S %Z}: {summary_of(results)}</p>"
        "<table><tr><th>test<th>outcome<th>seconds<th>what was found</tr>"
        f"{''.join(rows)}</table></html>\n"
    )
