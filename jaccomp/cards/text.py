"""A card as plain text, for a terminal."""

from __future__ import annotations

from collections.abc import Callable

from jaccomp.card import Card, Line
from jaccomp.cards.document import Cell, Formulas, Listing, Note, Part, Rewrite, Section, Table, sections

INDENT = "    "


def render(card: Card, heading: Callable[[str], str] = str) -> str:
    """The card, each title as `heading` makes it."""
    head = heading(card.signature) + "".join(f"\n{INDENT}{line}" for line in card.doc.splitlines())
    return "\n\n".join([head, *(_section(one, heading) for one in sections(card))]) + "\n"


def _section(section: Section, heading: Callable[[str], str]) -> str:
    lines = [line for part in section.parts for line in _part(part)]
    return "\n".join([heading(section.title), *(f"{INDENT}{line}".rstrip() for line in lines)])


def _part(part: Part) -> list[str]:
    match part:
        case Formulas():
            return [line.text for line in part.lines]
        case Table():
            return _table(part)
        case Rewrite():
            before, after = (f"  - {one}" for one in part.before), (f"  + {one}" for one in part.after)
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
