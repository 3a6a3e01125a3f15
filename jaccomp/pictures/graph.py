"""A program as a graph: what it is given, its equations in the order of their dependence, and what it gives."""

from __future__ import annotations

import textwrap
from xml.etree.ElementTree import Element

from jaccomp.pictures.layout import Edge, Layout, Point, layered
from jaccomp.pictures.picture import Picture, coloured, element, label, number, picture, width_of
from jaccomp.printing import MUL, axis_letters, equation_text, expression_text
from jaccomp.program import Equation, Program, reads

MARGIN = 16.0
LINE = 16.0  # from one line of text to the next
LONGEST = 52  # letters of a line
ARROW = 6.0


def graph(program: Program, title: str = "") -> Picture:
    """Boxes for inputs, equations and outputs, and an arrow from each to those that read it.

    Inputs have round ends and outputs too; an equation is written out in its box.
    """
    texts: dict[str, list[str]] = {}
    kinds: dict[str, str] = {}
    edges: list[Edge] = []
    for name in program.inputs:
        texts[name], kinds[name] = _declared(program, name), "input"
    for equation in program.equations:
        key = equation.target
        texts[key], kinds[key] = _wrapped(equation_text(program, equation)), "equation"
        edges += [(read, key) for read in reads(equation)]
    for name in program.outputs:
        key = f"{name}\noutput"
        texts[key], kinds[key] = _declared(program, name), "output"
        edges.append((name, key))
    boxes = {key: _size(lines) for key, lines in texts.items()}
    layout = layered(boxes, edges)
    arrows = element("g", {"fill": "none", "stroke": "currentColor", "stroke-opacity": 0.55}, *_arrows(layout))
    tips = element("g", {"fill-opacity": 0.7}, *(_tip(points[-1]) for points in layout.routes.values()))
    nodes = [_node(kinds[key], layout.places[key], boxes[key], texts[key]) for key in texts]
    called = program.labels.name
    heading = title or f"{program.name} as a graph"
    given, made = (", ".join(map(called, names)) for names in (program.inputs, program.outputs))
    description = (
        f"From {given or 'nothing'} to {made} in {len(program.equations)} equations: "
        + "; ".join(_sentence(program, e) for e in program.equations)
        + "."
    )
    body = element("g", {"transform": f"translate({number(MARGIN)} {number(MARGIN)})"}, arrows, tips, *nodes)
    return picture(heading, description, layout.width + 2 * MARGIN, layout.height + 2 * MARGIN, body)


def _sentence(program: Program, equation: Equation) -> str:
    read = ", ".join(program.labels.name(name) for name in reads(equation))
    return f"{program.labels.name(equation.target)} from {read or 'constants'}"


def _declared(program: Program, name: str) -> list[str]:
    """`x[n,i]` and its extents."""
    tensor = program.tensor(name)
    letters = axis_letters(program.labels, tensor)
    read = program.labels.name(name) + (f"[{','.join(letters)}]" if letters else "")
    shape = " × ".join(expression_text(program.labels, e, {}, MUL) for e in tensor.shape)
    whole = "integers" if tensor.dtype == "int64" else ""
    below = ", ".join(part for part in (shape, whole) if part)
    return [read, *([below] if below else [])]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, LONGEST, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _size(lines: list[str]) -> tuple[float, float]:
    return max(width_of(line) for line in lines) + 24.0, LINE * len(lines) + 14.0


def _node(kind: str, place: Point, size: tuple[float, float], lines: list[str]) -> Element:
    (x, y), (width, height) = place, size
    shape = {"x": x - width / 2, "y": y - height / 2, "width": width, "height": height}
    left = x - width / 2 + 12
    first = y - LINE * (len(lines) - 1) / 2 + 4
    texts = [
        label(line.strip(), left + (14 if line.startswith(" ") else 0), first + LINE * k, **_weight(kind, k))
        for k, line in enumerate(lines)
    ]
    if kind == "equation":
        box = element("rect", {**shape, "rx": 4, "fill-opacity": 0.05, "stroke": "currentColor", "stroke-opacity": 0.5})
        return element("g", {}, box, *texts)
    outline = element("rect", {**shape, "rx": height / 2, "fill-opacity": 0.14, "stroke-width": 1.5})
    return element("g", {}, coloured(kind, "fill", [coloured(kind, "stroke", [outline])]), *texts)


def _weight(kind: str, line: int) -> dict[str, object]:
    if kind == "equation":
        return {}
    return {"font_weight": "bold"} if line == 0 else {"font_size": 11, "fill_opacity": 0.8}


def _arrows(layout: Layout) -> list[Element]:
    return [element("path", {"d": _curve(points)}) for points in layout.routes.values()]


def _curve(points: tuple[Point, ...]) -> str:
    """Down through the points: straight where one lies under the other, else bent at both ends."""
    (x, y), *rest = points
    text = f"M{number(x)} {number(y)}"
    for to_x, to_y in rest:
        middle = (y + to_y) / 2
        bend = f"C{number(x)} {number(middle)} {number(to_x)} {number(middle)} {number(to_x)} {number(to_y)}"
        text += f"V{number(to_y)}" if abs(to_x - x) < 0.5 else bend
        x, y = to_x, to_y
    return text


def _tip(end: Point) -> Element:
    x, y = end
    return element("path", {"d": f"M{number(x)} {number(y)}l{number(-ARROW / 2)} {number(-ARROW)}h{number(ARROW)}z"})
