"""A card as plain text, for a terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from jaccomp.card import Card, Line
from jaccomp.cards.document import Cell, Formulas, Listing, Note, Part, Rewrite, Section, Table, sections

INDENT = "    "


Paint = Callable[[str, Literal["title", "before", "after"]], str]


def plain(text: str, kind: str) -> str:
    """Text without colour."""
    return text


def render(card: Card, paint: Paint = plain) -> str:
    """The card; titles, and the equations before and after a rule, as `paint` makes them."""
    said = (f"\n{INDENT}{printable(line)}" for line in card.doc.splitlines())
    head = paint(card.signature, "title") + "".join(said)
    return "\n\n".join([head, *(_section(one, paint) for one in sections(card))]) + "\n"


def printable(text: str) -> str:
    """Text without what a terminal would obey."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)


def _section(section: Section, paint: Paint) -> str:
    lines = [line for part in section.parts for line in _part(part, paint)]
    return "\n".join([paint(section.title, "title"), *(f"{INDENT}{line}".rstrip() for line in lines)])


def _part(part: Part, paint: Paint) -> list[str]:
    match part:
        case Formulas():
            return [line.text for line in part.lines]
        case Table():
            return _table(part)
        case Rewrite():
            before = (paint(f"  - {one}", "before") for one in part.before)
            after = (paint(f"  + {one}", "after") for one in part.after)
            return [f"{part.name}: {part.law}", *before, *after]
        case Listing():
            titles = [f"{part.title}: {one}" for one in part.equations] or [part.title]
            return [*titles, *(f"  {line}" for line in part.code.rstrip("\n").split("\n")), ""]
        case Note():
            return [part.text]


def _table(table: Table) -> list[str]:
    rows = [[_cell(cell) for cell in row] for row in (table.head, *table.rows)]
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _cell(cell: Cell) -> str:
    return cell.text if isinstance(cell, Line) else cell
