"""The index of a site: a line for each layer, to be searched, and filtered by family and by structure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from jaccomp.card import BlockCard, Card, Line
from jaccomp.gallery.documents import asset, document

UNNAMED = "layers"
"""What layers without a family are listed under."""


LONGEST = 100
"""Letters of a matrix form that the index shows: what its symbols stand for makes others long."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A layer in the index. `search` is the text that a search looks through, `structures` what a filter asks for."""

    name: str
    href: str
    family: str
    doc: str
    equation: Line
    block: Line | None
    structures: tuple[str, ...]
    search: str

    @property
    def terms(self) -> str:
        """The structures as one attribute."""
        return "|".join(self.structures)


@dataclass(frozen=True, slots=True)
class Choice:
    """A box to tick, and how many layers it holds."""

    value: str
    count: int


def index(title: str, entries: Sequence[Entry], version: str) -> str:
    """The index as one HTML file. Entries stand in the order given, one family after another."""
    families = [(name, list(members)) for name, members in groupby(entries, key=lambda one: one.family)]
    filters = [
        ("family", "Family", _choices([one.family] for one in entries)),
        ("structure", "Structure", _choices(one.structures for one in entries)),
    ]
    return document(
        "index.html.j2", title=title, styles=[asset("style.css")],
        scripts=[asset("page.js"), asset("index.js")],
        families=families, filters=filters, total=len(entries), version=version,
    )  # fmt: skip


def family(card: Card) -> str:
    """What a card is listed under."""
    return card.family or UNNAMED


def entry(card: Card, href: str) -> Entry:
    """What the index says of a card: its last equation, its first block, its structures."""
    structures = sorted({one for block in card.blocks for one in structure_terms(block.structure)})
    formulas = [line.text for line in card.equations]
    search = " ".join([card.name, card.family, card.doc, *formulas, *(block.structure for block in card.blocks)])
    return Entry(
        name=card.name,
        href=href,
        family=family(card),
        doc=card.doc,
        equation=card.equations[-1],
        block=_shown(card.blocks[0]) if card.blocks else None,
        structures=tuple(structures),
        search=" ".join(search.split()),
    )


def _shown(block: BlockCard) -> Line:
    """The block as a matrix where that is short, else in index form."""
    return block.matrix if block.matrix is not None and len(block.matrix.text) <= LONGEST else block.line


def structure_terms(words: str) -> tuple[str, ...]:
    """What a structure is filtered by: its outer kind and its inner one, ranks of any number alike.

    block diagonal: diagonal + rank 2   ->   block diagonal, diagonal + low rank
    Kronecker: I ⊗ rank 1               ->   Kronecker, low rank
    """
    parts = (re.sub(r"\brank \S+", "low rank", part.removeprefix("I ⊗ ")) for part in words.split(": "))
    return tuple(dict.fromkeys(part for part in parts if part))


def _choices(values: Iterable[Iterable[str]]) -> list[Choice]:
    counted = Counter(one for some in values for one in some)
    return [Choice(value, counted[value]) for value in sorted(counted)]
