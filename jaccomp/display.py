"""How a notebook shows an object: the same thing as text, as LaTeX and as HTML, each complete.

A front end that has MathJax sets the formulas of both, which stand between dollars; prose is kept from it, and escaped
in HTML and LaTeX alike, so that a name or a text can be no command and no element.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from importlib import import_module
from typing import Any

PLAIN, LATEX, HTML = "text/plain", "text/latex", "text/html"
PROSE = "tex2jax_ignore mathjax_ignore"
"""The classes of what MathJax 2 and 3 leave alone."""
ESCAPES = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def bundle(text: str, latex: str, html: str) -> dict[str, str]:
    """What `_repr_mimebundle_` returns."""
    return {PLAIN: text, LATEX: latex, HTML: html}


def of_formula(text: str, latex: str) -> dict[str, str]:
    """The bundle of one formula."""
    return bundle(text, display(latex), f"<div>{escape(display(latex))}</div>")


def of_parts(text: str, parts: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The bundle of parts that are LaTeX and HTML each, one below the other."""
    pairs = list(parts)
    return bundle(text, "\n\n".join(one[0] for one in pairs), "\n".join(one[1] for one in pairs))


def display(latex: str) -> str:
    """A formula on a line of its own."""
    return f"$\\displaystyle {latex}$"


def formulas(lines: Iterable[str]) -> tuple[str, str]:
    """Formulas one below the other, as LaTeX and HTML."""
    shown = [display(one) for one in lines]
    return "\n\n".join(shown), "\n".join(f"<div>{escape(one)}</div>" for one in shown)


def prose(text: str) -> tuple[str, str]:
    """A paragraph that is no formula, as LaTeX and HTML."""
    return escaped_latex(text), f'<p class="{PROSE}">{escape(text)}</p>'


def code(text: str) -> tuple[str, str]:
    """Lines as they are, as LaTeX and HTML."""
    return verbatim(text), f'<pre class="{PROSE}">{escape(text)}</pre>'


def heading(text: str) -> tuple[str, str]:
    """A title, as LaTeX and HTML."""
    return rf"\textbf{{{escaped_latex(text)}}}", f'<p class="{PROSE}"><strong>{escape(text)}</strong></p>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> tuple[str, str]:
    """A table of prose, as LaTeX and HTML."""
    body = [list(row) for row in rows]
    lines = [" & ".join(map(escaped_latex, row)) for row in [list(head), *body]]
    latex = "\\begin{tabular}{" + "l" * len(head) + "}\n" + " \\\\\n".join(lines) + "\n\\end{tabular}"
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    html = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in body)
    return latex, f'<table class="{PROSE}"><thead><tr>{top}</tr></thead>\n<tbody>\n{html}\n</tbody></table>'


def escaped_latex(text: str) -> str:
    """Prose that LaTeX sets as it is."""
    return "".join(ESCAPES.get(one, one) for one in text)


def verbatim(text: str) -> str:
    """Lines as LaTeX leaves them; what would end the environment is broken."""
    return "\\begin{verbatim}\n" + re.sub(r"\\end\s*\{verbatim", r"\\end {verbatim", text) + "\n\\end{verbatim}"


def mimebundle(shown: Any, include: object = None, exclude: object = None) -> dict[str, str]:
    """`_repr_mimebundle_` of the classes that `jaccomp.showing` has a function for, found by the name of the class.

    By name, because what spells a thing is made of it: no class of jaccomp imports its own printer.
    """
    functions = import_module("jaccomp.showing").SHOWN
    found: dict[str, str] = next(functions[c.__name__] for c in type(shown).__mro__ if c.__name__ in functions)(shown)
    return found
