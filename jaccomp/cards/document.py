"""A card as a document: the sections that every format spells, in their order, of five kinds of parts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from jaccomp.card import Argument, BlockCard, Card, CheckRecord, CheckRow, Line

Cell = str | Line


@dataclass(frozen=True, slots=True)
class Formulas:
    """Formulas one below the other."""

    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under a head; a cell is prose or a formula."""

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A rule with its law, and the equations that it took and gave."""

    name: str
    law: str
    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Listing:
    """Code, with a title and the equations that it computes."""

    title: str
    equations: tuple[str, ...]
    code: str


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence."""

    text: str


Part = Formulas | Table | Rewrite | Listing | Note


@dataclass(frozen=True, slots=True)
class Section:
    """A title and what stands under it."""

    title: str
    parts: tuple[Part, ...]


def sections(card: Card) -> tuple[Section, ...]:
    """The sections of a card that hold anything."""
    found = (
        Section("Arguments", _table(("name", "role", "type", "default"), map(_argument, card.arguments))),
        Section("Equations, as written", _formulas(card.equations)),
        Section("Program, as it is differentiated", _formulas(card.intermediates)),
        Section("Local Jacobians", _formulas(card.local, "Each equation by what it reads, all else held fixed.")),
        Section(
            "Chain",
            _formulas(card.chain, "One product for each path; it sums over the indices of what lies between."),
        ),
        Section("Jacobian", tuple(part for block in card.blocks for part in _block(block))),
        Section("Rules that fired", tuple(Rewrite(r.name, r.law, r.before, r.after) for r in card.rules)),
        Section("VJP", _formulas(card.vjp)),
        Section("JVP", _formulas(card.jvp)),
        Section(
            "Residuals",
            _table(
                ("name", "shape", "is", "why"),
                ((r.name, r.shape or "number", "kept" if r.kept else "computed again", r.why) for r in card.residuals),
            ),
        ),
        Section(
            "Cost",
            (
                *_table(("function", "operations", "bytes"), ((c.function, c.flops, c.bytes) for c in card.costs)),
                Note(
                    "Operations of the program as computed, each function of a number one; bytes of a float32 call's "
                    "arguments and results, each read or written once."
                ),
            ),
        ),
        Section(
            "Conventions in force",
            _table(("where", "value", "source"), ((c.what, c.value, c.source) for c in card.conventions)),
        ),
        Section("Domain", _table(("limit", "where", "why"), ((n.what, n.where, n.why) for n in card.domain))),
        Section("Checks", _checks(card.checks)),
        Section("Source", tuple(Listing(part.function, part.equations, part.code) for part in card.source)),
        Section("Provenance", _table(("of", "is"), (("jaccomp", card.version), ("spec", card.spec_hash)))),
    )
    return tuple(section for section in found if section.parts)


def _formulas(lines: tuple[Line, ...], note: str = "") -> tuple[Part, ...]:
    if not lines:
        return ()
    return (*((Note(note),) if note else ()), Formulas(lines))


def _table(head: tuple[str, ...], rows: Iterable[tuple[Cell, ...]]) -> tuple[Part, ...]:
    kept = tuple(rows)
    return (Table(head, kept),) if kept else ()


def _argument(one: Argument) -> tuple[Cell, ...]:
    return one.name, one.role, Line(f"{one.dtype}{one.shape}", one.latex), one.default


def _block(block: BlockCard) -> tuple[Part, ...]:
    facts = [block.structure]
    facts += [f"rank {block.rank}"] if block.rank else []
    facts += [f"spectral norm {block.norm}"] if block.norm else []
    facts += [f"{block.storage} numbers"] if block.storage else []
    facts += [f"{block.work} multiply-adds a product"] if block.work else []
    if block.matrix is None:
        return Formulas((block.line,)), Note("; ".join(facts) + ".")
    return Formulas((block.line, block.matrix)), Note("; ".join([*facts, f"{block.layout} layout"]) + ".")


def _checks(record: CheckRecord | None) -> tuple[Part, ...]:
    if record is None:
        return ()
    verdict = "passed" if record.passed else "FAILED"
    versions = ", ".join(f"{name} {number}" for name, number in record.versions)
    return (
        Note(
            f"{verdict} on {record.date}: {record.cases} cases, the worst at {record.worst:.2g} of its tolerance; "
            f"{versions}."
        ),
        *_table(("dtype", "what", "reference", "sizes", "error", "allowed", ""), map(_check, record.rows)),
    )


def _check(row: CheckRow) -> tuple[Cell, ...]:
    verdict = "ok" if row.passed else "FAILED"
    return row.dtype, row.what, row.reference, row.sizes, f"{row.error:.1e}", f"{row.tolerance:.1e}", verdict
