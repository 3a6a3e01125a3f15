"""A card as a complete LaTeX document, for pdflatex with amsmath and amssymb; nothing a user names can be a command.

Prose is spelled character by character. Code and the equations beside it are set in typewriter letters by the same
table, so that Greek and mathematical signs print in pdflatex, which knows none of them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from jaccomp.card import Card, Line
from jaccomp.cards.document import Cell, Formulas, Listing, Note, Part, Rewrite, Section, Table, sections
from jaccomp.latex_names import GREEK

HEAD = r"""\documentclass[10pt]{article}
\usepackage[margin=2cm]{geometry}
\usepackage{amsmath,amssymb}
\setlength{\parindent}{0pt}
\setlength{\parskip}{4pt}
\allowdisplaybreaks
\emergencystretch=3em
\newcommand{\code}[1]{{\parskip=0pt\ttfamily\scriptsize\raggedright\hangindent=3em #1\par}}
\begin{document}
"""
TAIL = "\\end{document}\n"

ESCAPES = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"{\char34}", "'": "{'}", "`": r"{\char96}", "-": "{-}",
}  # fmt: skip
"""In braces, two quotes or hyphens do not become one sign."""
SIGNS = {
    "Σ": r"\Sigma", "Π": r"\Pi", "δ": r"\delta", "π": r"\pi", "∂": r"\partial", "≤": r"\le", "≥": r"\ge", "≠": r"\ne",
    "·": r"\cdot", "√": r"\surd", "∞": r"\infty", "⌊": r"\lfloor", "⌋": r"\rfloor", "⌈": r"\lceil", "⌉": r"\rceil",
    "‖": r"\Vert", "⊗": r"\otimes", "→": r"\to", "²": "{}^2", "³": "{}^3", "⁴": "{}^4", "½": r"\tfrac12",
    "ᵀ": r"{}^{\mathsf T}", "⟨": r"\langle", "⟩": r"\rangle", "×": r"\times", "∈": r"\in", "∇": r"\nabla",
}  # fmt: skip


def render(card: Card) -> str:
    """The card as a document of its own."""
    return document([card])


def document(cards: Iterable[Card]) -> str:
    """One document of several cards, each from a new page."""
    return HEAD + "\\clearpage\n".join(_card(one) for one in cards) + TAIL


def _card(card: Card) -> str:
    head = [rf"\section*{{{prose(card.name)}}}", *([prose(card.doc)] if card.doc else []), _code([card.signature])]
    return "\n\n".join([*head, *(_section(one) for one in sections(card))]) + "\n\n"


def prose(text: str) -> str:
    """Any text, as it reads; what pdflatex has no letter for is spelled by its code point."""
    return "".join(_character(one) for one in " ".join(text.split()))


def _character(one: str) -> str:
    if one in ESCAPES:
        return ESCAPES[one]
    if one.isascii() and one.isprintable():
        return one
    if one in SIGNS:
        return f"\\ensuremath{{{SIGNS[one]}}}"
    if one in GREEK:
        return f"\\ensuremath{{\\{GREEK[one]}}}"
    return ACCENTED.get(one) or f"[U+{ord(one):04X}]"


def _accents() -> dict[str, str]:
    """Latin letters with one accent, which LaTeX can set."""
    marks = {"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0308": '"', "\u030a": "r", "\u0327": "c"}
    found = {"ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "ø": r"\o{}", "Ø": r"\O{}", "ł": r"\l{}", "Ł": r"\L{}"}
    for code in range(0xC0, 0x180):
        parts = unicodedata.normalize("NFD", chr(code))
        if len(parts) == 2 and parts[1] in marks and parts[0].isascii():
            found[chr(code)] = f"\\{marks[parts[1]]}{{{parts[0]}}}"
    return found


ACCENTED = _accents()


def _code(lines: Iterable[str]) -> str:
    """Lines of code, one a paragraph, indented as they are, broken where they are too long."""
    return "\n".join(f"\\code{{{_indented(line)}}}" for line in lines)


def _indented(line: str) -> str:
    stripped = line.lstrip(" ")
    depth = len(line) - len(stripped)
    space = rf"\hspace*{{{depth * 0.5:g}em}}" if depth else ""
    return f"{space}{prose(stripped)}" if stripped else r"\strut"


def _section(section: Section) -> str:
    return "\n\n".join([rf"\subsection*{{{section.title}}}", *(_part(part) for part in section.parts)])


def _part(part: Part) -> str:
    match part:
        case Formulas():
            return "\n".join(f"\\[ {line.latex} \\]" for line in part.lines)
        case Table():
            return "\n\n".join(_row(part.head, row) for row in part.rows)
        case Rewrite():
            changes = [*(f"- {one}" for one in part.before), *(f"+ {one}" for one in part.after)]
            return f"\\textbf{{{prose(part.name)}}}: {prose(part.law)}\n\n{_code(changes)}"
        case Listing():
            return f"\\textbf{{{prose(part.title)}}}\n\n{_code([*part.equations, '', *part.code.splitlines()])}"
        case Note():
            return prose(part.text)


def _row(head: tuple[str, ...], row: tuple[Cell, ...]) -> str:
    """A row as one paragraph, `name: value; ...`: cells of formulas are too wide for columns."""
    cells = [
        f"\\textit{{{prose(name)}}} {_cell(cell)}" if name else _cell(cell)
        for name, cell in zip(head, row, strict=True)
        if cell != ""
    ]
    return r"$\bullet$ " + r"; \quad ".join(cells) + r"\par"


def _cell(cell: Cell) -> str:
    return f"${cell.latex}$" if isinstance(cell, Line) else prose(cell)
