"""Matrix expressions as text and as LaTeX.

    rstd diag(g) (I - 1 1ᵀ/D - xhat xhatᵀ/D)
    \\mathrm{rstd} \\, \\operatorname{diag}\\left(g\\right) \\left(I - \\frac{1}{D} \\mathbf{1} \\, ...

`1` is the column of ones, `⊙` and `⊘` multiply and divide entry by entry, and so act functions and powers of arrays. An
array is written without the indices that the form is stated for each value of, unless it is read at several.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import sympy as sp

from jaccomp.latex_names import latex_access, latex_name
from jaccomp.matrix.nodes import (
    Axis,
    BlockDiagonal,
    Diag,
    Entries,
    Hadamard,
    Identity,
    Kron,
    Literal,
    Node,
    OneHot,
    Ones,
    Product,
    Scaled,
    Stack,
    Sum,
    Transpose,
    Triangle,
    Zero,
    extent,
)
from jaccomp.matrix.scene import Leaf, Scene, reads_of
from jaccomp.matrix.words import Words
from jaccomp.notation import Access
from jaccomp.printing import ADD, ATOM, MUL, POW, UNARY, expression_text
from jaccomp.printing_latex import Writer, fraction
from jaccomp.program import expand, instantiate

EXTREMA = ("argmax", "argmin")


class Style:
    """How the pieces of a matrix expression are put on paper; `Text` and `Latex` say what each looks like."""

    ones = zero = identity = odot = otimes = gap = ""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        labels = scene.program.labels
        taken = {labels.name(a.name) for one in scene.names.values() for a in reads_of(one)}
        taken |= {labels.name(s.name) for s in (*scene.program.sizes, *(c.symbol for c in scene.program.scalars))}
        taken |= {labels.name(name) for name in scene.patterns}
        self.is_sized = "I" in taken

    # what the styles differ in

    def brackets(self, text: str) -> str:
        raise NotImplementedError

    def transposed(self, text: str) -> str:
        raise NotImplementedError

    def function(self, name: str, text: str) -> str:
        raise NotImplementedError

    def indexed(self, name: str, letter: str, text: str) -> str:
        raise NotImplementedError

    def sized(self, text: str, size: sp.Expr) -> str:
        raise NotImplementedError

    def divided(self, numerator: str, node: str, denominator: str) -> str:
        raise NotImplementedError

    def grid(self, rows: Sequence[Sequence[str]]) -> str:
        raise NotImplementedError

    def norm(self, text: str) -> str:
        raise NotImplementedError

    def applied(self, name: str, text: str) -> str:
        raise NotImplementedError

    def read(self, leaf: Leaf) -> str:
        raise NotImplementedError

    def expression(self, expr: sp.Expr, words: Mapping[sp.Expr, str], level: int) -> str:
        raise NotImplementedError

    def size(self, expr: sp.Expr) -> str:
        raise NotImplementedError

    def held(self, index: sp.Expr) -> str:
        """An index whose value is held."""
        raise NotImplementedError

    def span(self, start: sp.Expr, stop: sp.Expr, whole: sp.Expr) -> str:
        """A part of an axis."""
        raise NotImplementedError

    # what they share

    def cells(self, leaf: Leaf, *, short: bool) -> list[str]:
        """What stands between the brackets: nothing where whole axes are read and the name says the rest."""
        shape = self.scene.program.tensor(leaf.access.name).shape
        found, is_whole = [], True
        for index, size, whole in zip(leaf.access.indices, leaf.sizes, shape, strict=True):
            if size is None:
                if not short:
                    found.append(self.held(index))
                continue
            start = self.scene.start(index)
            is_part = (start != 0 or expand(size - whole) != 0) and not (short and self.scene.is_held(index))
            found.append(self.span(start, expand(start + size), whole) if is_part else ":")
            is_whole = is_whole and not is_part
        return [] if short and is_whole else found

    def spelled(self, node: Node, level: int = ADD) -> str:
        text, own = self._spell(node)
        return self.brackets(text) if own < level else text

    def _spell(self, node: Node) -> tuple[str, int]:
        match node:
            case Entries(expr, rows, columns):
                return self._entries(expr, rows, columns)
            case Ones():
                return self.ones, ATOM
            case Identity(axis):
                return (self.sized(self.identity, extent(axis)) if self.is_sized else self.identity), ATOM
            case Zero():
                return self.zero, ATOM
            case OneHot(position):
                return self.function("onehot", self.scalar(position)), ATOM
            case Literal(entries):
                return self.grid([[self.scalar(one) for one in row] for row in entries]), ATOM
            case BlockDiagonal(((symbol, _),), block):
                return self.indexed("blockdiag", self.scene.letters[symbol], self.spelled(block)), ATOM
            case Diag(inner):
                return self.function("diag", self.spelled(inner)), ATOM
            case Transpose(inner):
                return self.transposed(self.spelled(inner, ATOM)), POW
            case Triangle(inner, lower):
                return self.function("tril" if lower else "triu", self.spelled(inner)), ATOM
            case Product(factors):
                return self.gap.join(self.spelled(one, UNARY) for one in factors), MUL
            case Hadamard(factors):
                return self.odot.join(self.spelled(one, UNARY) for one in factors), MUL
            case Kron(factors):
                return self.otimes.join(self._in_kron(one) for one in factors), MUL
            case Stack(blocks, sideways):
                cells = [self.spelled(one) for one in blocks]
                return self.grid([cells] if sideways else [[one] for one in cells]), ATOM
            case Sum(addends):
                return self._sum(addends), ADD
            case Scaled(factor, inner):
                return self._scaled(factor, inner)
        raise AssertionError(node)

    def _in_kron(self, node: Node) -> str:
        """A factor; an identity says its size, which nothing beside it does."""
        if isinstance(node, Identity):
            return self.sized(self.identity, extent(node.rows))
        return self.spelled(node, UNARY)

    def _sum(self, addends: Iterable[Node]) -> str:
        text = ""
        for one in addends:
            part = self.spelled(one, ADD if isinstance(one, Entries) else MUL)
            text += part if not text else f" - {part[1:]}" if part.startswith("-") else f" + {part}"
        return text

    def _scaled(self, factor: sp.Expr, inner: Node) -> tuple[str, int]:
        if factor.could_extract_minus_sign():
            text, own = self._scaled(-factor, inner) if factor != -1 else self._spell(inner)
            return "-" + (self.brackets(text) if own < MUL else text), MUL
        above, below = fraction(factor)
        numerator = "" if above == 1 else self.scalar(above, MUL)
        level = UNARY if isinstance(inner, Kron) and below != 1 else MUL if isinstance(inner, Product) else UNARY
        node = self.spelled(inner, level)
        return self.divided(numerator, node, "" if below == 1 else self.scalar(below, self.divisor_level(below))), MUL

    def divisor_level(self, below: sp.Expr) -> int:
        return ATOM if isinstance(below, sp.Mul) else POW

    # expressions

    def extremum(self, access: Access) -> str:
        """The position of an extremum that has no name, of a tensor along whole axes: `argmax x[n,:]`."""
        program = self.scene.program
        definition = program.definition(access.name)
        if access.name in program.labels.names or definition is None or definition.reducer not in EXTREMA:
            return ""
        (term,) = instantiate(definition, access.indices, 900)
        if not isinstance(term.body, Access):
            return ""
        extents = {**self.scene.extents, **{b: term.upper_bounds(b)[0] for b in term.bound}}
        leaf = replace(self.scene, extents=extents).leaf(term.body)
        return self.applied(definition.reducer, self.read(replace(leaf, short=False)))

    def scalar(self, expr: sp.Expr, level: int = ADD) -> str:
        text, own = self._entries(expr, (), ())
        if level <= own:
            return text
        return self.brackets(text)

    def _entries(self, expr: sp.Expr, rows: Axis, columns: Axis) -> tuple[str, int]:
        """An expression of arrays: entrywise products by their sign, a scalar that is added times ones."""
        words = Words(self, rows, columns)
        ready = words.arrays(expr)
        inner = self.expression(ready, words.texts, ADD)
        level = next(one for one in (ATOM, POW, UNARY, MUL, ADD) if self.expression(ready, words.texts, one) == inner)
        return inner, level


class Text(Style):
    ones, zero, identity, odot, otimes, gap = "1", "0", "I", " ⊙ ", " ⊗ ", " "

    def brackets(self, text: str) -> str:
        return f"({text})"

    def transposed(self, text: str) -> str:
        return f"{text}ᵀ"

    def function(self, name: str, text: str) -> str:
        return f"{name}({text})"

    def indexed(self, name: str, letter: str, text: str) -> str:
        return f"{name}_{letter} {text}"

    def sized(self, text: str, size: sp.Expr) -> str:
        spelled = self.size(size)
        return f"{text}_{spelled}" if spelled.isidentifier() or spelled.isdigit() else f"{text}_({spelled})"

    def size(self, expr: sp.Expr) -> str:
        return expression_text(self.scene.program.labels, expr, self.scene.letters)

    def divided(self, numerator: str, node: str, denominator: str) -> str:
        return (f"{numerator} " if numerator else "") + node + (f"/{denominator}" if denominator else "")

    def grid(self, rows: Sequence[Sequence[str]]) -> str:
        return "[" + "; ".join(", ".join(row) for row in rows) + "]"

    def norm(self, text: str) -> str:
        return f"‖{text}‖"

    def applied(self, name: str, text: str) -> str:
        return f"{name} {text}"

    def read(self, leaf: Leaf) -> str:
        name = self.scene.program.labels.name(leaf.access.name)
        cells = self.cells(leaf, short=leaf.short)
        return f"{name}[{','.join(cells)}]" if cells else name

    def span(self, start: sp.Expr, stop: sp.Expr, whole: sp.Expr) -> str:
        ends = "" if start == 0 else self.size(start), "" if expand(stop - whole) == 0 else self.size(stop)
        return ":".join(_tight(one) for one in ends)

    def held(self, index: sp.Expr) -> str:
        return _tight(expression_text(self.scene.program.labels, index, self.scene.letters))

    def expression(self, expr: sp.Expr, words: Mapping[sp.Expr, str], level: int) -> str:
        labels = self.scene.program.labels
        arrays = {one.name: text for one, text in words.items() if isinstance(one, Access)}
        symbols = {one: text for one, text in words.items() if isinstance(one, sp.Symbol)}
        labels = replace(labels, names={**labels.names, **arrays})
        return expression_text(labels, expr, {**self.scene.letters, **symbols}, level)


class Latex(Style):
    ones, zero, identity, gap = r"\mathbf{1}", "0", "I", r" \, "
    odot, otimes = r" \odot ", r" \otimes "

    def brackets(self, text: str) -> str:
        return rf"\left({text}\right)"

    def transposed(self, text: str) -> str:
        return rf"{text}^{{\top}}"

    def function(self, name: str, text: str) -> str:
        return rf"\operatorname{{{name}}}\left({text}\right)"

    def indexed(self, name: str, letter: str, text: str) -> str:
        return rf"\operatorname{{{name}}}_{{{latex_name(letter)}}} {text}"

    def sized(self, text: str, size: sp.Expr) -> str:
        return f"{text}_{{{self.size(size)}}}"

    def size(self, expr: sp.Expr) -> str:
        return Writer(self.scene.program.labels, self.scene.letters).spelled(expr)

    def divided(self, numerator: str, node: str, denominator: str) -> str:
        if denominator:
            return rf"\frac{{{numerator or 1}}}{{{denominator}}} \, {node}"
        return rf"{numerator} \, {node}" if numerator else node

    def divisor_level(self, below: sp.Expr) -> int:
        return ADD

    def grid(self, rows: Sequence[Sequence[str]]) -> str:
        return r"\begin{bmatrix} " + r" \\ ".join(" & ".join(row) for row in rows) + r" \end{bmatrix}"

    def norm(self, text: str) -> str:
        return rf"\left\lVert {text} \right\rVert"

    def applied(self, name: str, text: str) -> str:
        return rf"\operatorname{{{name}}} {text}"

    def read(self, leaf: Leaf) -> str:
        name = self.scene.program.labels.name(leaf.access.name)
        return latex_access(name, self.cells(leaf, short=leaf.short))

    def span(self, start: sp.Expr, stop: sp.Expr, whole: sp.Expr) -> str:
        return f"{self.size(start)}:{self.size(stop)}"

    def held(self, index: sp.Expr) -> str:
        return Writer(self.scene.program.labels, self.scene.letters).spelled(index)

    def expression(self, expr: sp.Expr, words: Mapping[sp.Expr, str], level: int) -> str:
        return Writer(self.scene.program.labels, self.scene.letters, arrays=words).spelled(expr, level)


def _tight(text: str) -> str:
    return text.replace(" + ", "+").replace(" - ", "-").replace(" ", "·")
