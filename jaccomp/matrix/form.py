"""MatrixForm: a Jacobian block as a mathematician writes it, in text and in LaTeX, with what its words mean.

    for each n: ∂y[n,:]/∂x[n,:] = diag(y) - y yᵀ, where y = y[n,:] ∈ ℝ^D

In numerator layout rows are those of the output and columns those of the input, in denominator layout the other way; a
side of several axes that no frame takes apart counts as one column, in row-major order (`vec`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal as Choice

import sympy as sp

from jaccomp.algebra.blocks import Block
from jaccomp.errors import UsageError
from jaccomp.latex_names import latex_access, latex_name
from jaccomp.matrix.derivation import Derived, derived
from jaccomp.matrix.nodes import Entries, Identity, Kron, Node, parts, transpose
from jaccomp.matrix.scene import Leaf, blocks_of, expressions, reads_of, scene
from jaccomp.matrix.spelling import Latex, Text
from jaccomp.notation import Access
from jaccomp.printing import axis_letters
from jaccomp.program import Program, Tensor, accesses

Layout = Choice["numerator", "denominator"]
LAYOUTS: tuple[Layout, ...] = ("numerator", "denominator")

TIMES = r" \times "


@dataclass(frozen=True, slots=True)
class MatrixForm:
    """`text` and `latex` for each value of the indices in `over`; `where` says what the names in it are."""

    text: str
    latex: str
    over: tuple[str, ...]
    layout: Layout
    head: str
    latex_head: str
    where: tuple[str, ...]
    latex_where: tuple[str, ...]
    whole: str | None
    """The block for all values of `over` at once, where it is the same for each: `I_N ⊗ W`."""
    latex_whole: str | None
    node: Node
    derived: Derived

    @property
    def statement(self) -> str:
        """The whole sentence."""
        each = f"for each {', '.join(self.over)}: " if self.over else ""
        return f"{each}{self.head} = {self.text}" + (f", where {', '.join(self.where)}" if self.where else "")

    @property
    def latex_statement(self) -> str:
        """The whole sentence, in math mode."""
        over = ", ".join(latex_name(one) for one in self.over)
        each = rf"\text{{for each }} {over}\colon\quad " if over else ""
        where = r",\quad \text{where } " + r",\ ".join(self.latex_where) if self.latex_where else ""
        return f"{each}{self.latex_head} = {self.latex}{where}"

    def __str__(self) -> str:
        return self.statement


def matrix_form(
    program: Program, block: Block, letters: Sequence[str], layout: Layout = "numerator"
) -> MatrixForm | None:
    """The matrix form of a block of a VJP program; None where its structure has none.

    `letters` are the indices of rows and columns as they are printed. Raises `UsageError` for an unknown layout.
    """
    if layout not in LAYOUTS:
        raise UsageError(f"layout {layout!r}", "there is none of that name.", f"It is one of {', '.join(LAYOUTS)}.")
    found = derived(program, block)
    if found is None:
        return None
    symbols = dict(zip((*block.rows, *block.columns), letters, strict=True))
    held: dict[sp.Symbol, str] = {}
    over: list[str] = []
    for pair, size in zip(found.frame.over, found.over_extents, strict=True):
        held_now = [s for s in pair if s is not None]
        letter = symbols.get(held_now[0]) or axis_letters(program.labels, Tensor("", (size,)), (*letters, *over))[0]
        over.append(letter)
        held |= dict.fromkeys(held_now, letter)
    for symbol, size in blocks_of(found.node):
        names = axis_letters(program.labels, Tensor("", (size,)), (*letters, *held.values()))
        held[symbol] = names[0]
    is_turned = (layout == "numerator") == found.frame.gradient
    node = transpose(found.node) if is_turned else found.node
    what = scene(program, held, found.names, node)
    text, latex = Text(what), Latex(what)
    every = _repeated(found, node)
    sides = (block.of, found.rows, found.row_extents), (block.wrt, found.columns, found.column_extents)
    parts, latex_parts = ([_side(style, *side, found) for side in sides] for style in (text, latex))
    return MatrixForm(
        text=text.spelled(node),
        latex=latex.spelled(node),
        over=tuple(over),
        layout=layout,
        head=f"∂{parts[0]}/∂{parts[1]}",
        latex_head=rf"\frac{{\partial {latex_parts[0]}}}{{\partial {latex_parts[1]}}}",
        where=_where(text, node, found),
        latex_where=_where(latex, node, found),
        whole=None if every is None else text.spelled(every),
        latex_whole=None if every is None else latex.spelled(every),
        node=node,
        derived=found,
    )


def _repeated(found: Derived, node: Node) -> Node | None:
    """`I ⊗ node`, where the first axes of both sides are held and the node sees none of them."""
    over = found.frame.over
    pairs = tuple(zip(found.rows, found.columns, strict=False))
    held = {s for pair in over for s in pair}
    seen = {s for one in (node, *found.names.values()) for expr in expressions(one) for s in expr.free_symbols}
    if not over or over != pairs[: len(over)] or held & seen:
        return None
    axis = tuple((row, e) for (row, _), e in zip(over, found.over_extents, strict=True) if row is not None)
    factors = node.factors if isinstance(node, Kron) else (node,)
    return Kron((Identity(axis), *factors))


def _side(style: Text | Latex, name: str, places: Sequence[sp.Expr], sizes: Sequence[sp.Expr], found: Derived) -> str:
    """`y[n,:]`, `vec(W)`."""
    label = style.scene.program.labels.name(name)
    cells = []
    for place, size in zip(places, sizes, strict=True):
        free = [s for s in place.free_symbols if s in found.extents and s not in style.scene.letters]
        if not free:
            cells.append(style.held(place))
        elif place in free:
            cells.append(":")
        else:
            start = place - free[0]
            cells.append(style.span(start, start + found.extents[free[0]], size))
    free_count = sum(":" in one for one in cells)
    shown = cells if any(one != ":" for one in cells) else []
    is_matrix = found.frame.gradient and free_count == 2
    text = _bracketed(style, label, shown)
    return style.function("vec", text) if free_count > 1 and not is_matrix else text


def _bracketed(style: Text | Latex, label: str, cells: Sequence[str]) -> str:
    if isinstance(style, Latex):
        return latex_access(label, cells)
    return f"{label}[{','.join(cells)}]" if cells else label


def _where(style: Text | Latex, node: Node, found: Derived) -> tuple[str, ...]:
    """What each name is a part of, and the space that it is an element of."""
    seen: dict[str, str] = {}
    every = (node, *found.names.values())
    columns = {a for one in every for a in _flattened(one)}
    order = {tensor.name: place for place, tensor in enumerate(style.scene.program.tensors)}
    for access in sorted((a for one in every for a in reads_of(one)), key=lambda a: order[a.name]):
        if access in found.names or access.name not in style.scene.program.labels.names:
            continue
        leaf = style.scene.leaf(access)
        short = style.read(leaf)
        sizes = [s for s in leaf.sizes if s is not None]
        whole = _whole(style, leaf)
        if access in columns:
            whole, sizes = style.function("vec", whole), [sp.Mul(*sizes)]
        space = _space(style, sizes, style.scene.program.tensor(access.name).dtype)
        meaning = " ".join((*((f"= {whole}",) if whole != short else ()), *((space,) if space else ())))
        if meaning:
            seen.setdefault(short, f"{short} {meaning}")
    return tuple(seen.values())


def _whole(style: Text | Latex, leaf: Leaf) -> str:
    name = style.scene.program.labels.name(leaf.access.name)
    cells = style.cells(leaf, short=False)
    if all(one == ":" for one in cells):
        return style.read(leaf)
    return _bracketed(style, name, cells)


def _flattened(node: Node) -> Iterator[Access]:
    """The reads that are columns over several indices at once."""
    if isinstance(node, Entries) and not node.columns and len(node.rows) > 1:
        symbols = {s for s, _ in node.rows}
        yield from (a for expr in expressions(node) for a in accesses(expr) if a.free_symbols & symbols)
    for inner in parts(node):
        yield from _flattened(inner)


def _space(style: Text | Latex, sizes: Sequence[sp.Expr], dtype: str) -> str:
    if not sizes:
        return ""
    spelled = [style.size(size) for size in sizes]
    if isinstance(style, Latex):
        return rf"\in \mathbb{{{'Z' if dtype == 'int64' else 'R'}}}^{{{TIMES.join(spelled)}}}"
    field = "ℤ" if dtype == "int64" else "ℝ"
    if len(spelled) == 1:
        return f"∈ {field}^{_grouped(spelled[0])}"
    return f"∈ {field}^({'×'.join(map(_grouped, spelled))})"


def _grouped(text: str) -> str:
    return text if text.isidentifier() or text.isdigit() else f"({text})"
