"""What a notebook shows of each class, as text, LaTeX and HTML: one function a class, found by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from jaccomp import display

if TYPE_CHECKING:
    from jaccomp.card import Card
    from jaccomp.cards.document import Part
    from jaccomp.jacobian import Jacobian
    from jaccomp.layer import Layer
    from jaccomp.notation import Access, Tensor
    from jaccomp.program import Program
    from jaccomp.reference.report import Report
    from jaccomp.runtime import Kernel
    from jaccomp.spec import WrittenEquation

Bundle = dict[str, str]


def tensor(one: Tensor) -> Bundle:
    """`x[N, D]`, and the space that it is of."""
    from jaccomp.cards.subject import space
    from jaccomp.latex_names import latex_name

    shape = f"[{', '.join(map(str, one.shape))}]" if one.shape else ""
    text = f"{one.name}{shape}" + (": int64" if one.dtype == "int64" else "")
    return display.of_formula(text, rf"{latex_name(one.name)} \in {space(one.dtype, one.shape)}")


def access(one: Access) -> Bundle:
    """A read of a tensor."""
    from jaccomp.printing_latex import formula_latex

    return display.of_formula(str(one), formula_latex(one))


def equation(one: WrittenEquation) -> Bundle:
    """An equation as it is written."""
    from jaccomp.printing_latex import written_latex

    return display.of_formula(str(one), written_latex(one.left, one.right))


def program(one: Program) -> Bundle:
    """Its signature and its equations."""
    from jaccomp.printing import program_text
    from jaccomp.printing_latex import equation_latex

    text = program_text(one)
    lines = (equation_latex(one, each) for each in one.equations)
    return display.of_parts(text, [display.heading(text.split("\n")[0]), display.formulas(lines)])


def layer(one: Layer) -> Bundle:
    """Its signature, what it says of itself, and its equations as they are written."""
    from jaccomp.cards.gather import equations
    from jaccomp.cards.subject import signature

    head, lines = signature(one), equations(one)
    text = "\n".join([head, *([f"    {one.doc}"] if one.doc else []), *(f"    {line.text}" for line in lines)])
    said = [display.prose(one.doc)] if one.doc else []
    formulas = display.formulas(line.latex for line in lines)
    return display.of_parts(text, [display.heading(head), *said, formulas])


def jacobian(one: Jacobian) -> Bundle:
    """The block in index form and, where it has one, as a matrix; and what is certain of it."""
    import sympy as sp

    form = one.matrix()
    text = "\n    ".join([str(one), *([form.statement] if form is not None else []), one.structure])
    formulas = [str(sp.latex(one)), *([form.latex_statement] if form is not None else [])]
    return display.of_parts(text, [display.formulas(formulas), display.prose(one.structure)])


def kernel(one: Kernel) -> Bundle:
    """Its functions, and the Jacobian that they contract."""
    functions = ", ".join(name for name in ("forward", "vjp", "jvp", "jacobian") if hasattr(one.modules[0], name))
    blocks = one.formulas.values()
    head = f"Kernel {one.name}: {functions}"
    text = "\n".join([head, *(f"    {text}    ({structure})" for text, _, structure in blocks)])
    parts = [part for _, latex, words in blocks for part in (display.formulas([latex]), display.prose(words))]
    return display.of_parts(text, [display.heading(head), *parts])


def report(one: Report) -> Bundle:
    """Its rows as a table, and its verdict."""
    head, *rows = one.table
    return display.of_parts(str(one), [display.table(head, rows), display.heading(one.verdict)])


def card(one: Card) -> Bundle:
    """All its sections."""
    from jaccomp.cards.document import sections

    parts = [display.heading(one.signature), *([display.prose(one.doc)] if one.doc else [])]
    for section in sections(one):
        parts.append(display.heading(section.title))
        parts += [each for part in section.parts for each in _part(part)]
    return display.of_parts(str(one), parts)


def _part(part: Part) -> list[tuple[str, str]]:
    from jaccomp.cards.document import Formulas, Listing, Note, Rewrite, Table

    match part:
        case Formulas():
            return [display.formulas(line.latex for line in part.lines)]
        case Table():
            rows = [[cell if isinstance(cell, str) else cell.text for cell in row] for row in part.rows]
            return [display.table(part.head, rows)]
        case Rewrite():
            changes = [*(f"- {one}" for one in part.before), *(f"+ {one}" for one in part.after)]
            return [display.prose(f"{part.name}: {part.law}"), display.code("\n".join(changes))]
        case Listing():
            return [display.prose(part.title), display.code("\n".join([*part.equations, "", part.code]))]
        case Note():
            return [display.prose(part.text)]


SHOWN: Mapping[str, Callable[[Any], Bundle]] = {
    "Tensor": tensor,
    "Access": access,
    "WrittenEquation": equation,
    "Program": program,
    "Layer": layer,
    "Jacobian": jacobian,
    "Kernel": kernel,
    "Report": report,
    "Card": card,
}
