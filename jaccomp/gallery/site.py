"""A site: an index and a page for each layer, as files by name."""

from __future__ import annotations

from collections.abc import Sequence

from jaccomp.card import Card
from jaccomp.errors import UsageError
from jaccomp.gallery.index import entry, family, index
from jaccomp.gallery.page import Content, Link, page_of_site
from jaccomp.gallery.slugs import slug

INDEX = "index.html"


def file_name(card: Card) -> str:
    """The file of a layer's page."""
    return f"{slug(card.name)}.html"


def site(title: str, contents: Sequence[Content]) -> dict[str, str]:
    """File name -> text; the same bytes for the same contents, families in the order of their names, layers in theirs.

    Raises `UsageError` where two layers share a name.
    """
    ordered = sorted(contents, key=lambda one: (family(one.card), one.card.name))
    cards = [one.card for one in ordered]
    names = [file_name(card) for card in cards]
    twice = next((card.name for card, name in zip(cards, names, strict=True) if names.count(name) > 1), None)
    if not ordered or twice is not None:
        facts = "there is no layer to show." if twice is None else f"two layers are called {twice!r}."
        raise UsageError("gallery", facts, "Name layers or spec files, each layer once.")
    links = [Link(card.name, name) for card, name in zip(cards, names, strict=True)]
    around: list[Link | None] = [None, *links, None]
    home = Link(title, INDEX)
    pages = {
        name: page_of_site(one, home, around[k], around[k + 2])
        for k, (one, name) in enumerate(zip(ordered, names, strict=True))
    }
    entries = [entry(card, name) for card, name in zip(cards, names, strict=True)]
    return {**pages, INDEX: index(title, entries, cards[0].version)}
