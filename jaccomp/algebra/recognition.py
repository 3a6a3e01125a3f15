"""Forms that a user has already stabilised, and functions that have a name: recognised before differentiation.

A shift by a maximum, or a split at zero, must not be differentiated: its derivative at the kink is not the function's.
`Max(x, 0) + log(1 + exp(-|x|))` is softplus, `exp(x - max x) / Σ exp(x - max x)` is softmax without the maximum.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import sympy as sp

from jaccomp.algebra.matching import Rewrite, rewritten
from jaccomp.calculus.functions import Expm1, Log1p, Sigmoid, Softplus
from jaccomp.notation import Access
from jaccomp.program import Equation, Program, Term, accesses, live, map_terms, reads


@dataclass(frozen=True, slots=True)
class Identity:
    """A row: `left = right` wherever both are defined, and the function that rewrites a node."""

    name: str
    law: str
    rewrite: Rewrite


def _one_plus_exp(expr: sp.Expr) -> sp.Expr | None:
    """u, if the expression is `1 + exp(u)`."""
    if isinstance(expr, sp.Add) and len(expr.args) == 2 and expr.args[0] == 1:
        rest = expr.args[1]
        if isinstance(rest, sp.exp):
            return rest.args[0]
    return None


def _sigmoid(expr: sp.Expr) -> sp.Expr | None:
    if isinstance(expr, sp.Pow) and expr.exp.is_Integer and expr.exp < 0:
        inner = _one_plus_exp(expr.base)
        if inner is not None:
            return Sigmoid(-inner) ** (-expr.exp)
    return None


def _exp_times_sigmoid(expr: sp.Expr) -> sp.Expr | None:
    """`exp(u) σ(-u)` is σ(u)."""
    if not isinstance(expr, sp.Mul):
        return None
    factors = list(expr.args)
    for one in factors:
        inverse = Sigmoid(-one.args[0]) if isinstance(one, sp.exp) else None
        if inverse in factors:
            return sp.Mul(Sigmoid(one.args[0]), *(f for f in factors if f not in (one, inverse)))
    return None


def _logarithm(expr: sp.Expr) -> sp.Expr | None:
    if not isinstance(expr, sp.log):
        return None
    (argument,) = expr.args
    powers = [f for f in sp.Mul.make_args(argument) if isinstance(f, sp.exp)]
    if powers:
        rest = sp.Mul(*(f for f in sp.Mul.make_args(argument) if f not in powers))
        return sp.Add(*(p.args[0] for p in powers)) + sp.log(rest)
    if isinstance(argument, sp.Pow) and argument.exp == -1:
        return -sp.log(argument.base)
    inner = _one_plus_exp(argument)
    if inner is not None:
        return Softplus(inner)
    if isinstance(argument, Sigmoid):
        return -Softplus(-argument.args[0])
    if isinstance(argument, sp.Add):
        if argument.args[0] == 1 and len(argument.args) == 2:
            rest = argument.args[1]
            if isinstance(-rest, Sigmoid):
                return -Softplus((-rest).args[0])
            return Log1p(rest) if rest.has(Access) else None
        if argument.args[0] == 1:
            return Log1p(sp.Add(*argument.args[1:]))
    return None


def _split_softplus(expr: sp.Expr) -> sp.Expr | None:
    """`Max(u, 0) + softplus(-|u|)` is softplus(u); `Min(u, 0) - softplus(-|u|)` is -softplus(-u)."""
    if not isinstance(expr, sp.Add):
        return None
    for one in expr.args:
        scale, kernel = one.as_coeff_Mul()
        if not isinstance(kernel, Softplus):
            continue
        magnitude = -kernel.args[0]
        if not isinstance(magnitude, sp.Abs):
            continue
        (u,) = magnitude.args
        pairs = [(scale * sp.Max(0, v), scale * Softplus(v)) for v in (u, -u)]
        pairs += [(-scale * sp.Min(0, v), scale * Softplus(-v)) for v in (u, -u)]
        for partner, whole in pairs:
            if partner in expr.args:
                return sp.Add(whole, *(a for a in expr.args if a not in (one, partner)))
    return None


def _expm1(expr: sp.Expr) -> sp.Expr | None:
    """`exp(u) - 1`, and `c exp(u) - c`."""
    if not isinstance(expr, sp.Add):
        return None
    for one in expr.args:
        for scale in _scales(one):
            if -scale in expr.args:
                rest = [a for a in expr.args if a not in (one, -scale)]
                return sp.Add(scale * Expm1((one / scale).args[0]), *rest)
    return None


def _scales(addend: sp.Expr) -> Iterable[sp.Expr]:
    """c, if the addend is `c exp(u)`."""
    factors = sp.Mul.make_args(addend)
    powers = [f for f in factors if isinstance(f, sp.exp)]
    if len(powers) == 1 and powers[0].has(Access):
        yield sp.Mul(*(f for f in factors if f is not powers[0]))


def _tanh(expr: sp.Expr) -> sp.Expr | None:
    """`(exp(u) - exp(-u)) / (exp(u) + exp(-u))`."""
    if not isinstance(expr, sp.Mul):
        return None
    for above in expr.args:
        if not isinstance(above, sp.Add) or len(above.args) != 2:
            continue
        for one in above.args:
            if isinstance(one, sp.exp):
                u = one.args[0]
                below = (sp.exp(u) + sp.exp(-u)) ** -1
                if above == sp.exp(u) - sp.exp(-u) and below in expr.args:
                    return sp.Mul(sp.tanh(u), *(a for a in expr.args if a not in (above, below)))
    return None


def _heaviside(expr: sp.Expr) -> sp.Expr | None:
    if isinstance(expr, sp.Heaviside):
        value = expr.args[1] if len(expr.args) > 1 else sp.S.Half
        z = expr.args[0]
        return sp.Piecewise((sp.S.One, z > 0), (value, sp.Eq(z, 0)), (sp.S.Zero, True))
    return None


IDENTITIES: tuple[Identity, ...] = (
    Identity("sigmoid", "1/(1 + exp(-u)) = σ(u)", _sigmoid),
    Identity("sigmoid-product", "exp(u)/(1 + exp(u)) = σ(u)", _exp_times_sigmoid),
    Identity(
        "softplus",
        "log(1 + exp(u)) = softplus(u); log σ(u) = -softplus(-u); log(1 + v) = log1p(v); log(exp(u) v) = u + log v",
        _logarithm,
    ),
    Identity("split-softplus", "max(u, 0) + log(1 + exp(-|u|)) = softplus(u)", _split_softplus),
    Identity("expm1", "exp(u) - 1 = expm1(u)", _expm1),
    Identity("tanh", "(exp(u) - exp(-u))/(exp(u) + exp(-u)) = tanh(u)", _tanh),
    Identity("heaviside", "heaviside(z, h) = 1, h, 0 by the sign of z", _heaviside),
)


def recognised(expr: sp.Expr) -> sp.Expr:
    """The expression with every instance of an identity's left side rewritten, innermost first."""
    return rewritten(expr, [identity.rewrite for identity in IDENTITIES])


def recognise(program: Program) -> Program:
    """The program with stabilised forms undone: identities in bodies, and shifts by a maximum that cancel."""

    def body(term: Term) -> Term:
        return replace(term, body=recognised(term.body))

    program = program.with_equations(map_terms(e, body) for e in program.equations)
    for equation in program.equations:
        if equation.reducer in ("max", "min"):
            opened = _without_differences(program, equation.target)
            program = _without_shift(opened, equation.target) or program
    return program


def _without_differences(program: Program, shift: str) -> Program:
    """The program with maps such as `d = a - m`, m the maximum, written out where they are read."""
    for equation in program.equations:
        is_difference = equation.is_map and isinstance(equation.body, sp.Add)
        if is_difference and equation.target not in program.outputs and _reads(equation.body, shift):
            program = written_out(program, equation)
    return program


def written_out(program: Program, definition: Equation) -> Program:
    """The program without a map: its body stands where it was read."""

    def change(term: Term) -> Term:
        read = [a for a in accesses(term.body) if a.name == definition.target]
        where = {a: definition.body.xreplace(dict(zip(definition.axes, a.indices, strict=True))) for a in read}
        return replace(term, body=term.body.xreplace(where)) if where else term

    return program.with_equations(map_terms(e, change) for e in program.equations if e.target != definition.target)


def _without_shift(program: Program, shift: str) -> Program | None:
    """The program without `exp(a - m)`, m a maximum, if m cancels from everything else that is read; else None."""
    scales: dict[str, sp.Expr] = {}
    result: list[Equation] = []
    touched = False
    for equation in program.equations:
        if equation.target == shift or (shift not in reads(equation) and not scales.keys() & set(reads(equation))):
            result.append(equation)
            continue
        opened = map_terms(equation, lambda t: replace(t, body=_open_shift(t.body, shift, scales)))
        if shift not in reads(opened):
            touched = True
            result.append(opened)
            continue
        scale = _common_scale(program, opened, shift)
        if scale is None or equation.target in program.outputs:
            return None
        scales[equation.target] = scale
        result.append(map_terms(opened, lambda t: replace(t, body=sp.Mul(t.body, 1 / scale))))  # noqa: B023
        touched = True
    return live(program.with_equations(result)) if touched else None


def _open_shift(body: sp.Expr, shift: str, scales: dict[str, sp.Expr]) -> sp.Expr:
    """`exp(a - m)` as `exp(a) exp(-m)`, and reads of shifted tensors as what they are times their scale."""
    where: dict[sp.Expr, sp.Expr] = {}
    for access in accesses(body):
        if access.name in scales:
            scale = scales[access.name]
            own = sorted((s for s in scale.free_symbols if s.name[0] == "i" and s.name[1:].isdigit()), key=str)
            at = {s: access.indices[int(s.name[1:])] for s in own}
            where[access] = access * scale.xreplace(at)
    body = body.xreplace(where)
    return _split_exponentials(body, shift)


def _split_exponentials(expr: sp.Expr, shift: str) -> sp.Expr:
    if isinstance(expr, Access) or not expr.args:
        return expr
    arguments = [_split_exponentials(a, shift) for a in expr.args]
    if isinstance(expr, sp.log):
        powers = [f for f in sp.Mul.make_args(arguments[0]) if isinstance(f, sp.exp) and _reads(f, shift)]
        if powers:
            rest = sp.Mul(*(f for f in sp.Mul.make_args(arguments[0]) if f not in powers))
            return sp.log(rest) + sp.Add(*(p.args[0] for p in powers))
    if isinstance(expr, sp.exp):
        moved = [a for a in sp.Add.make_args(arguments[0]) if _reads(a, shift)]
        rest = sp.Add(*(a for a in sp.Add.make_args(arguments[0]) if a not in moved))
        if moved and all(isinstance(abs_free(a), Access) for a in moved):
            return sp.Mul(sp.exp(rest), sp.exp(sp.Add(*moved)), evaluate=False) if rest != 0 else expr
    result = expr.func(*arguments)
    return result


def abs_free(expr: sp.Expr) -> sp.Expr:
    return expr.as_coeff_Mul()[1]


def _reads(expr: sp.Expr, name: str) -> bool:
    return any(a.name == name for a in expr.atoms(Access))


def _common_scale(program: Program, equation: Equation, shift: str) -> sp.Expr | None:
    """The factor `exp(c m)` that every term has in front and nothing else reads, in the equation's own axes."""
    found: sp.Expr | None = None
    for term in equation.terms:
        for addend in sp.Add.make_args(term.body):
            powers = [f for f in sp.Mul.make_args(addend) if isinstance(f, sp.exp) and _reads(f, shift)]
            rest = sp.Mul(*(f for f in sp.Mul.make_args(addend) if f not in powers))
            if len(powers) != 1 or _reads(rest, shift) or powers[0].free_symbols & set(term.bound):
                return None
            if found is not None and powers[0] != found:
                return None
            found = powers[0]
    return found
