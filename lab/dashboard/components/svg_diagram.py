"""Diagrams of boxes and arrows as SVG; the elements of the present step are highlighted and move.

They move for under five seconds: a browser paints the whole diagram anew for every frame of it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from html import escape

from lab.figures.palette import REFERENCE_COLOUR, THEMES, theme_colour

STYLE = """<style>
svg { font-family: "Source Sans 3", "Source Sans Pro", "Segoe UI", Helvetica, Arial, sans-serif; }
.moving { stroke-dasharray: 8 5; animation: flow 0.8s linear 6; }
@keyframes flow { to { stroke-dashoffset: -13; } }
@media (prefers-reduced-motion: reduce) { .moving { animation: none; } }
</style>"""


@dataclass(frozen=True)
class Box:
    """A box at (x, y) with a title and lines under it. `colour` is the frame's colour; `hollow`
    draws the frame dashed, for a frozen model.
    """

    name: str
    x: float
    y: float
    width: float
    height: float
    title: str
    lines: tuple[str, ...] = ()
    colour: str = REFERENCE_COLOUR
    hollow: bool = False


@dataclass(frozen=True)
class Arrow:
    """An arrow along straight lines through `points`, with a label beside its first line."""

    name: str
    points: tuple[tuple[float, float], ...]
    label: str = ""


def svg(
    boxes: Sequence[Box],
    arrows: Sequence[Arrow],
    lit: Collection[str],
    size: tuple[int, int],
    theme: str,
) -> str:
    """The diagram as SVG text; all its texts are escaped. Boxes and arrows named in `lit` are
    highlighted; highlighted arrows move unless the reader's system asks for less motion.
    """
    colours = THEMES[theme]
    parts = [
        _arrow(a, a.name in lit, colours) for a in sorted(arrows, key=lambda a: a.name in lit)
    ] + [
        _box(replace(b, colour=theme_colour(b.colour, theme)), b.name in lit, colours)
        for b in boxes
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]}'
        f' {size[1]}">{STYLE}{"".join(parts)}</svg>'
    )


def _box(box: Box, lit: bool, colours: dict[str, str]) -> str:
    dash = ' stroke-dasharray="6 4"' if box.hollow else ""
    tint = f' fill="{box.colour}" fill-opacity="0.16"' if lit else f' fill="{colours["surface"]}"'
    middle, first = box.x + box.width / 2, box.y + box.height / 2 - 9.5 * len(box.lines) + 5
    weight, ink = ("bold", colours["text"]) if lit else ("normal", colours["muted"])
    texts = [
        f'<text x="{middle:g}" y="{first:g}" text-anchor="middle" font-size="16"'
        f' font-weight="{weight}" fill="{colours["text"]}">{escape(box.title)}</text>'
    ]
    texts += [
        f'<text x="{middle:g}" y="{first + 19 * i:g}" text-anchor="middle" font-size="14"'
        f' fill="{ink}">{escape(line)}</text>'
        for i, line in enumerate(box.lines, start=1)
    ]
    return (
        f'<g data-name="{escape(box.name)}"><rect x="{box.x:g}" y="{box.y:g}"'
        f' width="{box.width:g}" height="{box.height:g}" rx="7"{tint} stroke="{box.colour}"'
        f' stroke-width="{3 if lit else 1.5}"{dash}/>{"".join(texts)}</g>'
    )


def _arrow(arrow: Arrow, lit: bool, colours: dict[str, str]) -> str:
    colour = colours["text"] if lit else colours["muted"]
    (ax, ay), (bx, by) = arrow.points[-2:]
    length = max(((bx - ax) ** 2 + (by - ay) ** 2) ** 0.5, 1e-9)
    dx, dy = (bx - ax) / length, (by - ay) / length
    head = (
        " ".join(f"{bx - 10 * dx + s * 5 * dy:g},{by - 10 * dy - s * 5 * dx:g}" for s in (1, -1))
        + f" {bx:g},{by:g}"
    )
    path = (
        " ".join(f"{x:g},{y:g}" for x, y in arrow.points[:-1]) + f" {bx - 8 * dx:g},{by - 8 * dy:g}"
    )
    line_style = (
        f'class="moving" stroke-width="3" stroke="{colour}"'
        if lit
        else f'stroke-width="1.2" stroke="{colour}" stroke-opacity="0.6"'
    )
    (x, y), (x2, y2) = arrow.points[:2]
    label = (
        ""
        if not arrow.label
        else (
            f'<text x="{(x + x2) / 2:g}" y="{(y + y2) / 2 - 6:g}" text-anchor="middle"'
            f' font-size="13" fill="{colour}">{escape(arrow.label)}</text>'
        )
    )
    return (
        f'<polyline points="{path}" fill="none" {line_style}/><polygon points="{head}"'
        f' fill="{colour}"/>{label}'
    )
