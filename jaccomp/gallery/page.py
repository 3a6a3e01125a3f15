"""A card as one HTML page: everything that is known of a layer, formula first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from markupsafe import Markup

from jaccomp.card import BlockCard, Card, Line
from jaccomp.emit.live import Live
from jaccomp.gallery.documents import asset, document, part
from jaccomp.pictures import Picture


@dataclass(frozen=True, slots=True)
class Content:
    """What a page is about: a card, and what the layer itself adds to it.

    `live` are its programs, to be evaluated in the page; `graph` is a picture of the one that is differentiated;
    `instances` are pictures of each block in numbers, by (of, wrt).
    """

    card: Card
    live: Live | None = None
    graph: Picture | None = None
    instances: Mapping[tuple[str, str], Sequence[Picture]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Link:
    """Where a page of a site leads: the words of a link and the file it opens."""

    text: str
    href: str


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page: what its heading says, what a link to it says, and its body."""

    id: str
    title: str
    body: Markup


@dataclass(frozen=True, slots=True)
class Part:
    """How one section is made: its template, and the values that it spells; None where the card has nothing to say."""

    id: str
    title: str
    values: Callable[[Content], Mapping[str, Any] | None]

    def section(self, content: Content) -> Section | None:
        values = self.values(content)
        if values is None:
            return None
        return Section(self.id, self.title, part(f"sections/{self.id}.html.j2", id=self.id, **values))


def page(card: Card, live: Live | None = None) -> str:
    """One file that stands alone; with `live` it draws the layer's Jacobian at sizes and inputs of the reader's choice.

    >>> page(jc.layers.softmax.card())
    '<!DOCTYPE html>...'
    """
    return _document(Content(card, live), home=None, before=None, after=None)


def page_of_site(content: Content, home: Link, before: Link | None, after: Link | None) -> str:
    """The page with links to its site: the index, the layer before and the layer after."""
    return _document(content, home=home, before=before, after=after)


def _document(content: Content, **links: Link | None) -> str:
    found = [one.section(content) for one in PARTS]
    styles, scripts = [asset("style.css")], [asset("page.js")]
    if _live(content) is not None and content.live is not None:
        styles.append(asset("live.css"))
        scripts += [asset("live.js"), f'jaccompLive.mount(document.getElementById("heat-map"), {content.live.script});']
    return document(
        "card.html.j2", title=content.card.name, styles=styles, scripts=scripts,
        card=content.card, sections=[one for one in found if one is not None], **links,
    )  # fmt: skip


# The sections, in the order in which they are read


def _definition(content: Content) -> Mapping[str, Any]:
    card = content.card
    return {
        "equations": card.equations,
        "arguments": [(one, Line(one.name, one.latex)) for one in card.arguments],
        "signature": card.signature,
    }


def _jacobian(content: Content) -> Mapping[str, Any] | None:
    card = content.card
    blocks = [
        {
            "id": f"block-{number}",
            "of": one.of,
            "wrt": one.wrt,
            "line": one.line,
            "matrix": one.matrix,
            "structure": one.structure,
            "pictures": [_drawn(picture) for picture in content.instances.get((one.of, one.wrt), ())],
            "facts": _facts(one),
            "texts": [line for line in (one.line, one.matrix) if line is not None],
        }
        for number, one in enumerate(card.blocks, 1)
    ]
    return {"blocks": blocks, "layout": LAYOUTS[card.blocks[0].layout]} if blocks else None


def _drawn(picture: Picture) -> Mapping[str, Any]:
    return {"svg": Markup(picture.svg), "title": picture.title, "description": picture.description}


LAYOUTS = {
    "numerator": "Numerator layout: a row of the matrix for each entry of the output, a column for each entry of the "
    "input.",
    "denominator": "Denominator layout: a row of the matrix for each entry of the input, a column for each entry of "
    "the output.",
}


def _facts(block: BlockCard) -> list[tuple[str, str]]:
    """What is certain of it, each with its name; what is not stated is left out."""
    facts = [
        ("Rank", block.rank),
        ("Numbers to store", block.storage),
        ("Multiply-adds with a vector", block.work),
        ("Spectral norm", block.norm),
    ]
    return [(what, text) for what, text in facts if text]


def _live(content: Content) -> Mapping[str, Any] | None:
    return {} if content.live is not None and content.live.blocks else None


def _derivation(content: Content) -> Mapping[str, Any] | None:
    card = content.card
    groups = [
        ("Program", "The program that is differentiated, each sum an equation of its own.", card.intermediates),
        ("Local Jacobians", "Each equation by each thing it reads.", card.local),
        ("Chain", "Along each path from input to output, the product of the local ones; over all paths, the sum.",
         card.chain),
    ]  # fmt: skip
    present = [group for group in groups if group[2]]
    if not present and not card.rules:
        return None
    graph = None if content.graph is None else _drawn(content.graph)
    return {"graph": graph, "groups": present, "rules": card.rules, "fired": _counted(len(card.rules), "rule")}


def _products(content: Content) -> Mapping[str, Any] | None:
    card = content.card
    groups = [
        ("Vector-Jacobian product", "The cotangents of the inputs, from those of the outputs.", card.vjp),
        ("Jacobian-vector product", "The tangents of the outputs, from those of the inputs.", card.jvp),
    ]
    present = [group for group in groups if group[2]]
    return {"groups": present} if present else None


def _costs(content: Content) -> Mapping[str, Any] | None:
    card = content.card
    if not card.costs and not card.residuals:
        return None
    names = {"forward": "forward", "vjp": "VJP", "jvp": "JVP"}
    return {
        "costs": [(names[one.function], one) for one in card.costs],
        "residuals": [(one, "kept" if one.kept else "computed again") for one in card.residuals],
    }


def _domain(content: Content) -> Mapping[str, Any] | None:
    card = content.card
    return {"notes": card.domain, "conventions": card.conventions} if card.domain or card.conventions else None


def _source(content: Content) -> Mapping[str, Any] | None:
    card = content.card
    functions = [(name, list(parts)) for name, parts in groupby(card.source, key=lambda part: part.function)]
    return {"functions": functions} if functions else None


def _checks(content: Content) -> Mapping[str, Any] | None:
    card = content.card
    record = card.checks
    if record is None:
        return None
    rows = [(row, f"{row.error:.2g}", f"{row.tolerance:.2g}", _verdict(row.passed)) for row in record.rows]
    return {
        "verdict": _verdict(record.passed),
        "cases": _counted(record.cases, "case"),
        "worst": f"{record.worst:.2g}",
        "date": record.date,
        "versions": ", ".join(f"{name} {version}" for name, version in record.versions),
        "rows": rows,
    }


def _verdict(passed: bool) -> str:
    return "passed" if passed else "failed"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


PARTS: Sequence[Part] = (
    Part("definition", "Definition", _definition),
    Part("jacobian", "Jacobian", _jacobian),
    Part("live", "Heat map", _live),
    Part("derivation", "Derivation", _derivation),
    Part("products", "Products", _products),
    Part("costs", "Costs and residuals", _costs),
    Part("domain", "Domain and conventions", _domain),
    Part("source", "Generated source", _source),
    Part("checks", "Checks", _checks),
)
