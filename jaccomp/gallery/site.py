"""A site: an index and a page for each layer, as files by name."""

from __future__ import annotations

from collections.abc import Sequence

from jaccomp.card import Card
from jaccomp.errors import UsageError
from jaccomp.gallery.index import entry, family, index
from jaccomp.gallery.page import Link, page_of_site
from jaccomp.gallery.slugs import slug

INDEX = "index.html"


def file_name(card: Card) -> str:
    """The file of a layer's page."""
    return f"{slug(card.name)}.html"


def site(title: str, cards: Sequence[Card]) -> dict[str, str]:
    """File name -> text; the same bytes for the same cards, families in the order of their names, layers in theirs.

    Raises `UsageError` where two layers share a name.
    """
    ordered = sorted(cards, key=lambda card: (family(card), card.name))
    names = [file_name(card) for card in ordered]
    twice = next((card.name for card, name in zip(ordered, names, strict=True) if names.count(name) > 1), None)
    if not ordered or twice is not None:
        facts = "there is no layer to show." if twice is None else f"two layers are called {twice!r}."
        raise UsageError("gallery", facts, "Name layers or spec files, each layer once.")
    links = [Link(card.name, name) for card, name in zip(ordered, names, strict=True)]
    around: list[Link | None] = [None, *links, None]
    home = Link(title, INDEX)
    pages = {
        name: page_of_site(card, home, around[k], around[k + 2])
        for k, (card, name) in enumerate(zip(ordered, names, strict=True))
    }
    entries = [entry(card, name) for card, name in zip(ordered, names, strict=True)]
    return {**pages, INDEX: index(title, entries, ordered[0].version)}
