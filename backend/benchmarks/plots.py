"""Small line plots as SVG, written by hand: no library draws in this project."""

from collections.abc import Mapping, Sequence
from math import floor, log10
from pathlib import Path
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 640, 360, 70, 50, 40, 150
_COLORS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd")

Points = Sequence[tuple[float, float]]


def save_plot(
    path: Path, *, title: str, x_label: str, y_label: str, lines: Mapping[str, Points]
) -> None:
    """Write a plot with logarithmic axes; all values positive."""
    xs = [x for points in lines.values() for x, _ in points]
    ys = [y for points in lines.values() for _, y in points]
    x_range, y_range = _decades(xs), _decades(ys)

    def x_at(x: float) -> float:
        return _LEFT + (log10(x) - x_range[0]) / (x_range[1] - x_range[0]) * (
            _WIDTH - _LEFT - _RIGHT
        )

    def y_at(y: float) -> float:
        share = (log10(y) - y_range[0]) / (y_range[1] - y_range[0])
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _BOTTOM - _TOP)

    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}"'
            ' font-family="sans-serif" font-size="12">'
        ),
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="22" font-size="14">{escape(title)}</text>',
        (
            f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 10}"'
            f' text-anchor="middle">{escape(x_label)}</text>'
        ),
        (
            f'<text x="14" y="{_HEIGHT / 2}" text-anchor="middle"'
            f' transform="rotate(-90 14 {_HEIGHT / 2})">{escape(y_label)}</text>'
        ),
    ]
    for exponent in range(x_range[0], x_range[1] + 1):
        x = x_at(10.0**exponent)
        parts.append(f'<line x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{_HEIGHT - _BOTTOM}"'
                     ' stroke="#ddd"/>')  # fmt: skip
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">'
                     f'{_shown(exponent)}</text>')  # fmt: skip
    for exponent in range(y_range[0], y_range[1] + 1):
        y = y_at(10.0**exponent)
        parts.append(f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}"'
                     ' stroke="#ddd"/>')  # fmt: skip
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
                     f'{_shown(exponent)}</text>')  # fmt: skip
    for number, (name, points) in enumerate(lines.items()):
        color = _COLORS[number % len(_COLORS)]
        path_points = " ".join(f"{x_at(x):.1f},{y_at(y):.1f}" for x, y in points)
        parts.append(f'<polyline points="{path_points}" fill="none" stroke="{color}"'
                     ' stroke-width="2"/>')  # fmt: skip
        parts += [
            f'<circle cx="{x_at(x):.1f}" cy="{y_at(y):.1f}" r="3" fill="{color}"/>'
            for x, y in points
        ]
        parts.append(f'<text x="{_WIDTH - _RIGHT + 8}" y="{_TOP + 14 + 18 * number}"'
                     f' fill="{color}">{escape(name)}</text>')  # fmt: skip
    path.write_text("\n".join([*parts, "</svg>"]) + "\n")


def _decades(values: Sequence[float]) -> tuple[int, int]:
    low, high = floor(log10(min(values))), floor(log10(max(values)))
    return low, high + (10.0**high < max(values)) + (low == high and 10.0**high >= max(values))


def _shown(exponent: int) -> str:
    if exponent < 0:
        return f"{10.0**exponent:.{-exponent}f}"
    return f"{10**exponent:,}"
