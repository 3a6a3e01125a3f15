"""`lower`: a program becomes a kernel of fused, tiled, race-free nests."""

from __future__ import annotations

from dataclasses import replace

import sympy as sp

from jaccomp.lowering.again import compute_again
from jaccomp.lowering.classes import classes
from jaccomp.lowering.collapse import collapse
from jaccomp.lowering.contraction import extend_labels, name_operands, split_terms
from jaccomp.lowering.demand import narrow
from jaccomp.lowering.flatten import flatten
from jaccomp.lowering.hoist import hoist
from jaccomp.lowering.inline import inline
from jaccomp.lowering.ir import Block, Buffer, Function, Kernel, Partial, verify
from jaccomp.lowering.relieve import relieve
from jaccomp.lowering.schedule import Nest, Scheduler, total
from jaccomp.lowering.share import share
from jaccomp.lowering.shift import from_zero
from jaccomp.lowering.solve import rename_bounds
from jaccomp.lowering.statements import Statement, statements
from jaccomp.lowering.storage import Layout, layouts, node_accesses, place
from jaccomp.lowering.tabulate import tabulate
from jaccomp.lowering.tidy import Promotion, guarded, needs_of
from jaccomp.lowering.tiling import Loops
from jaccomp.lowering.unravel import unravel
from jaccomp.lowering.work import work
from jaccomp.program import Program, live, reads

TYPICAL = 64


def lower(program: Program) -> Kernel:
    """The kernel that computes a program: equations solved for loops, fused, tiled, stored and split over threads."""
    base = split_terms(collapse(unravel(rename_bounds(live(program)))))
    values = typical(base)

    def kernel(outer: bool) -> Kernel:
        return _best(relieve(tabulate(inline(name_operands(base, outer)), values), values))

    found = kernel(outer=True)
    if not any("_left" in b.name for b in found.temporaries):
        return found
    return min((found, kernel(outer=False)), key=_kept)


def _best(prepared: Program) -> Kernel:
    """The kernel that shares functions and computes maps again where that keeps fewer numbers between nests."""
    kernel = _lowered(_shared(prepared))
    if any(b.name.startswith("shared") for b in kernel.temporaries):
        kernel = _lowered(prepared)
    large = [b.name for b in kernel.temporaries if len(b.shape) > 1]
    if not large:
        return kernel
    again = compute_again(prepared, large)
    return kernel if again is prepared else min((kernel, _lowered(again)), key=_kept)


def _shared(prepared: Program) -> Program:
    """The program with costly functions computed once, and what that leaves of their readers done in few passes.

    e = exp(x - m);  z = Σ e;  y = e / z;  r = Σ c y   ->   e = exp(x - m);  z = Σ e;  s = Σ c e;  r = s / z
    """
    shared = share(prepared)
    return shared if shared is prepared else relieve(inline(shared), typical(shared), large=0)


def _kept(kernel: Kernel) -> tuple[float, int]:
    """What a kernel keeps between nests, at representative sizes."""
    values = typical(kernel.program)
    sizes = [float(sp.sympify(b.elements, strict=True).xreplace(values).evalf()) for b in kernel.temporaries]
    return sum(sizes), len(sizes)


def _lowered(prepared: Program) -> Kernel:
    prepared = replace(prepared, labels=extend_labels(prepared.labels, prepared.tensors))
    made, extra = statements(prepared, typical(prepared))
    wanted = needs(prepared)
    made = tuple(replace(s, needs=wanted[s.equation.target]) for s in narrow(made, prepared.outputs))
    made = from_zero(made)
    tensors = (*prepared.tensors, *extra)
    loops = Loops(classes(made, prepared.inputs), {t.name: t.shape for t in tensors}, typical(prepared))
    nests = Scheduler(loops, _capacity(prepared)).nests(made)
    where = layouts(prepared, (*tensors, *loops.made.values()), nests, loops)
    functions = tuple(_function(nest, where, number, made) for number, nest in enumerate(nests))
    buffers = [layout.buffer for layout in where.values()]
    kernel = Kernel(
        prepared.name,
        prepared,
        tuple(b for b in buffers if b.place in ("input", "output", "local")),
        tuple(b for b in buffers if b.place == "temporary"),
        tuple(functions),
        tuple((name, wanted[name]) for name in prepared.outputs if len(wanted[name]) > 1),
        tuple(loops.hints.items()),
    )
    return verify(kernel)


def typical(program: Program) -> dict[sp.Expr, sp.Expr]:
    """Representative values of sizes and scalars, for comparing costs only."""
    given = dict(zip(program.sizes, program.typical, strict=False))
    values: dict[sp.Expr, sp.Expr] = {s: sp.Integer(given.get(s, TYPICAL)) for s in program.sizes}
    for scalar in program.scalars:
        if scalar.dtype == "int64":
            values[scalar.symbol] = sp.Integer(int(scalar.default) if scalar.default is not None else 1)
    return values


def needs(program: Program) -> dict[str, tuple[str, ...]]:
    """For each defined tensor the outputs that cannot be computed without it."""
    result: dict[str, set[str]] = {e.target: set() for e in program.equations}
    for equation in reversed(program.equations):
        mine = result[equation.target]
        if equation.target in program.outputs:
            mine.add(equation.target)
        for name in reads(equation):
            if name in result:
                result[name] |= mine
    return {name: tuple(o for o in program.outputs if o in found) for name, found in result.items()}


def _capacity(program: Program) -> sp.Expr:
    named = [program.tensor(n) for n in (*program.inputs, *program.outputs)]
    return sp.Add(*(sp.Mul(*t.shape) for t in named))


def _function(nest: Nest, where: dict[str, Layout], number: int, everything: tuple[Statement, ...]) -> Function:
    body = place(nest.body, where)
    assert isinstance(body, Block)
    named = set(_names(nest))
    mine = [where[n].buffer for n in where if n in named]
    partials = tuple(_partial(where[name].buffer, nest) for name in nest.across)
    locals_ = frozenset(b.name for b in mine if b.place == "local")
    promotion = Promotion(locals_)
    body = hoist(promotion.block(body))
    wanted = needs_of(body)
    body = flatten(guarded(body, frozenset(wanted)))
    scratch = tuple(b for b in mine if b.place in ("scratch", "local")) + tuple(promotion.made)
    return Function(
        f"nest{number}",
        nest.parallel,
        body,
        scratch,
        partials,
        total(nest.parallel),
        work(nest.statements),
        wanted,
    )


def _names(nest: Nest) -> list[str]:
    return list(dict.fromkeys(a.name for a in node_accesses(nest.body)))


def _partial(buffer: Buffer, nest: Nest) -> Partial:
    reducer = next(s.reducer for s in nest.statements if s.target.name == buffer.name)
    return Partial(buffer.name, Buffer(f"{buffer.name}_partial", buffer.shape, "temporary", buffer.dtype), reducer)
