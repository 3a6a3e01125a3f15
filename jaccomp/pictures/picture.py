"""A picture: SVG text that stands by itself or in a page, says what it shows, and takes its colours from around it.

Lines and letters have `currentColor`. What has a colour of its own lies in two groups, the outer with a plain colour,
the inner with a CSS variable that a page may set: where it is not set, or not understood, the outer one is inherited.
There is no style sheet, no script and no reference, so that the strictest content policy lets it pass.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from xml.etree.ElementTree import Element, tostring

FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
LETTER = 0.61  # of the size of the font: the width of a letter of a font in which all have the same
COLOURS: Mapping[str, str] = {
    "negative": "#2b78c5",
    "positive": "#d06a12",
    "input": "#2f8f6f",
    "output": "#8a5bc0",
    "accent": "#2b78c5",
}
"""The variable `--jc-NAME` of each, and what it is where a page sets none: seen on white and on black."""


@dataclass(frozen=True, slots=True)
class Picture:
    """`svg` with its title and description, which it holds too, and its size in pixels."""

    svg: str
    title: str
    description: str
    width: int
    height: int

    def _repr_svg_(self) -> str:
        return self.svg

    def __str__(self) -> str:
        return self.description


def picture(title: str, description: str, width: float, height: float, *children: Element) -> Picture:
    """The children in a frame of that size, named by title and description for those who hear it."""
    title, description = legal(title), legal(description)
    across, down = round(width), round(height)
    body = "".join(tostring(one, encoding="unicode") for one in children)
    mark = hashlib.sha256(f"{title}\n{description}\n{body}".encode()).hexdigest()[:10]
    root = element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {across} {down}",
            "width": across,
            "height": down,
            "role": "img",
            "aria-labelledby": f"jc-{mark}-title jc-{mark}-desc",
            "font-family": FONT,
            "font-size": 12,
            "fill": "currentColor",
        },
        element("title", {"id": f"jc-{mark}-title"}, title),
        element("desc", {"id": f"jc-{mark}-desc"}, description),
        *children,
    )
    return Picture(tostring(root, encoding="unicode"), title, description, across, down)


def element(name: str, attributes: Mapping[str, object], *children: Element | str) -> Element:
    """An element with children, or with text; numbers are written in at most two decimals."""
    made = Element(name, {key: number(v) if isinstance(v, float) else str(v) for key, v in attributes.items()})
    for child in children:
        if isinstance(child, str):
            made.text = legal(child)
        else:
            made.append(child)
    return made


def coloured(name: str, paint: str, children: Iterable[Element]) -> Element:
    """The children in a colour of `COLOURS`, as their `fill` or `stroke`."""
    inner = element("g", {paint: f"var(--jc-{name})"}, *children)
    return element("g", {paint: COLOURS[name]}, inner)


def label(text: str, x: float, y: float, **attributes: object) -> Element:
    spelled = {key.replace("_", "-"): value for key, value in attributes.items()}
    return element("text", {"x": float(x), "y": float(y), **spelled}, text)


def width_of(text: str, size: float = 12) -> float:
    """How wide a text is, about."""
    return len(text) * size * LETTER


def number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if value else "0"


def quantity(value: float) -> str:
    """A number for a legend: five digits, and a true minus sign."""
    text = f"{value:.4g}"
    return text.replace("-", "−")


def legal(text: str) -> str:
    """The text with the characters that XML cannot hold, not even escaped, replaced."""
    return "".join(
        c if c in "\t\n" or (c >= " " and not "\ud800" <= c <= "\udfff" and c not in "\ufffe\uffff") else "�"
        for c in text
    )
