"""A card as GitHub's Markdown: formulas as mathematics, tables, code in fences; names and prose escaped."""

from __future__ import annotations

import re

from jaccomp.card import Card, Line
from jaccomp.cards.document import Cell, Formulas, Listing, Note, Part, Rewrite, Section, Table, sections

SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|<>~$&^-])")
"""What means something to Markdown, HTML or a formula, anywhere in a line."""
NUMBERED = re.compile(r"^(\d+)\.", re.MULTILINE)


def render(card: Card) -> str:
    """The card, its signature as the title's code."""
    head = [f"# {escaped(card.name)}", *([escaped(card.doc)] if card.doc else []), fenced(card.signature, "text")]
    return "\n\n".join([*head, *(_section(one) for one in sections(card))]) + "\n"


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, in one paragraph."""
    return NUMBERED.sub(r"\1\\.", SPECIAL.sub(r"\\\1", " ".join(text.split())))


def fenced(code: str, language: str) -> str:
    """A block of code whose fence is longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall("`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{code.rstrip(chr(10))}\n{fence}"


def _section(section: Section) -> str:
    return "\n\n".join([f"## {section.title}", *(_part(part) for part in section.parts)])


def _part(part: Part) -> str:
    match part:
        case Formulas():
            return "\n\n".join(fenced(line.latex, "math") for line in part.lines)
        case Table():
            return _table(part)
        case Rewrite():
            changes = "\n".join([*(f"- {one}" for one in part.before), *(f"+ {one}" for one in part.after)])
            return f"**{escaped(part.name)}**: {escaped(part.law)}\n\n{fenced(changes, 'diff')}"
        case Listing():
            title = f"**{escaped(part.title)}**"
            return "\n\n".join([title, fenced("\n".join(part.equations) or "-", "text"), fenced(part.code, "cython")])
        case Note():
            return escaped(part.text)


def _table(table: Table) -> str:
    rows = [[_cell(cell) for cell in row] for row in (table.head, *table.rows)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(table.head), *lines[1:]])


def _cell(cell: Cell) -> str:
    """Prose escaped; a formula between dollars and backticks, its bars as commands: `|` would end the cell."""
    if isinstance(cell, Line):
        return f"$`{cell.latex.replace('|', chr(92) + 'vert ')}`$"
    return escaped(cell)
