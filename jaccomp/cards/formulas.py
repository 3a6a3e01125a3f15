"""Formulas of programs, of Jacobians and of counts as lines: text and LaTeX side by side."""

from __future__ import annotations

from collections.abc import Mapping

import sympy as sp

from jaccomp.algebra.counts import Count
from jaccomp.card import Line
from jaccomp.jacobian import Jacobian
from jaccomp.matrix.form import Layout
from jaccomp.printing import RELATIONS, equation_text, expression_text
from jaccomp.printing_latex import RELATIONS as LATEX_RELATIONS
from jaccomp.printing_latex import equation_latex, expression_latex, written_latex
from jaccomp.program import Equation, Labels, Program
from jaccomp.spec import WrittenEquation

Names = Mapping[sp.Symbol, str]


def written_line(equation: WrittenEquation) -> Line:
    """An equation as its author wrote it."""
    return Line(str(equation), written_latex(equation.left, equation.right))


def equation_line(program: Program, equation: Equation) -> Line:
    """An equation of a program."""
    return Line(equation_text(program, equation), equation_latex(program, equation))


def jacobian_line(block: Jacobian) -> Line:
    """A block of a Jacobian in index form."""
    return Line(str(block), str(sp.latex(block)))


def matrix_line(block: Jacobian, layout: Layout) -> Line | None:
    """A block in the notation of matrices, with what its words mean; None where its structure has none."""
    form = block.matrix(layout)
    return None if form is None else Line(form.statement, form.latex_statement)


def expression_line(labels: Labels, expr: sp.Expr, names: Names) -> Line:
    """An expression of a program."""
    return Line(expression_text(labels, expr, names), expression_latex(labels, expr, names))


def relation_line(labels: Labels, relation: sp.Expr, names: Names) -> Line:
    """A comparison of two expressions of a program."""
    left, right = (expression_line(labels, side, names) for side in relation.args)
    return Line(
        f"{left.text} {RELATIONS[type(relation)]} {right.text}",
        f"{left.latex} {LATEX_RELATIONS[type(relation)]} {right.latex}",
    )


def count_line(labels: Labels, count: Count) -> Line:
    """A count in the sizes; an upper bound with its sign."""
    line = expression_line(labels, count.value, {})
    return line if count.exact else Line(f"≤ {line.text}", rf"\le {line.latex}")
