"""Layers made of layers: a chain, or any graph without circles, as one layer of one program.

    mlp = jc.chain(fc1=linear, act=gelu, fc2=linear)
    mlp                                   mlp(x, fc1_W, fc1_b, fc2_W, fc2_b) -> y

    block = jc.chain(norm=layernorm, fc=linear, sum=jc.stage(add, x="fc", z="input"))

A stage's first real input takes the output of the stage before it, unless `jc.stage` says otherwise; its other inputs
and its scalars are the chain's own, under the stage's name. Sizes that must be one are one: where an axis meets
another, a size that only one side has is written in the other's. A size of any axes stands for as many as it meets.
Stages that read one further input of the chain, as a mask, name it: `jc.stage(attention, x="fc", mask="input.mask")`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sympy as sp
from sympy.core.symbol import Str

from jaccomp.errors import SpecError, UsageError
from jaccomp.jacobian import Jacobian
from jaccomp.layer import Layer
from jaccomp.notation import Access, Index, Reduction, Scalar, Size, Tensor, check_name
from jaccomp.spec import Spec, make_spec

INPUT = "input"
Shape = tuple[sp.Expr, ...]


@dataclass(frozen=True, slots=True)
class Stage:
    """A layer of a chain, and which of its inputs read which stage: `{"x": "fc", "z": "input", "h": "cell.h_next"}`."""

    layer: Layer
    wires: Mapping[str, str] = field(default_factory=dict)


def stage(layer: Layer, /, **wires: str) -> Stage:
    """A layer of a chain whose named inputs read other stages: `jc.stage(add, x="fc", z="input")`.

    A wire names a stage, `stage.output` where it has several outputs, or "input", what the chain itself is given; or
    "input.mask", a further input of the chain called mask, which any number of stages may read.
    """
    return Stage(layer, dict(wires))


@dataclass(frozen=True, slots=True)
class Placed:
    """A stage in its chain: the source of each wired input, (stage, output) or ("input", name), and its names there.

    `inputs`, `outputs`, `scalars` and `sizes` map the layer's own names to the chain's; sizes, where they are one.
    """

    name: str
    layer: Layer
    sources: Mapping[str, tuple[str, str]]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    scalars: Mapping[str, str]
    sizes: Mapping[str, str]


Path = tuple[tuple[Placed, str, str], ...]


class Chain(Layer):
    """A layer that knows the layers it is made of; `stages` are in order of their dependence."""

    stages: tuple[Placed, ...]

    @classmethod
    def of_stages(cls, spec: Spec, stages: tuple[Placed, ...]) -> Chain:
        made = cls.__new__(cls)
        made._spec, made.name, made.doc, made.stages = spec, spec.name, spec.doc, stages
        return made

    @classmethod
    def of_layer(cls, layer: Layer) -> Chain:
        """The chain of one stage whose names are the layer's own."""
        spec = layer.spec
        groups: tuple[Sequence[Any], ...] = (spec.inputs, spec.outputs, spec.scalars, spec.sizes)
        inputs, outputs, scalars, sizes = ({one.name: one.name for one in group} for group in groups)
        return cls.of_stages(spec, (Placed(layer.name, layer, {}, inputs, outputs, scalars, sizes),))

    def kernels(self, **options: Any) -> dict[str, Any]:
        """The compiled kernel of each stage by itself, by its name; a layer that stands twice is compiled once."""
        from jaccomp.compiling import compile

        built: dict[str, Any] = {}
        for one in self.stages:
            same = next((other for other in self.stages if other.layer is one.layer), one)
            built[one.name] = built[same.name] if same.name in built else compile(one.layer, **options)
        return built

    def paths(self, of: str, wrt: str) -> tuple[Path, ...]:
        """Every path of stages from `wrt` to `of`, the last stage first: (stage, its output, its input) at each step.

        Raises `UsageError` where `of` is no output of a stage or `wrt` no input, by the chain's names.
        """
        known = {name for one in self.stages for name in (*one.outputs.values(), *one.inputs.values())}
        for name in (of, wrt):
            if name not in known:
                raise UsageError(
                    f"factors of chain {self.name!r}", f"no stage has {name!r}.", f"There are {sorted(known)}."
                )
        return _paths(self.stages, of, wrt)

    def factors(self, of: str, wrt: str) -> tuple[tuple[Jacobian, ...], ...]:
        """The blocks along each path, the last stage's first: ∂of/∂wrt is the sum over paths of their products.

        Raises what `paths` does.
        """
        return tuple(
            tuple(one.layer.jacobian(output, wired) for one, output, wired in path) for path in self.paths(of, wrt)
        )


def chain(name: str = "chain", /, **stages: Layer | Stage) -> Chain:
    """The layer that runs `stages` one after the other. Raises `SpecError` where they do not fit, with both shapes."""
    check_name("layer", name)
    what = f"chain {name!r}"
    if not stages:
        raise SpecError(what, "it has no stage.", "Name at least one: jc.chain(fc=linear).")
    composer = _Composer(what)
    for key, given in stages.items():
        check_name("stage", key)
        one = given if isinstance(given, Stage) else Stage(given) if isinstance(given, Layer) else None
        if one is None:
            raise SpecError(f"{what}, stage {key!r}", f"{given!r:.80} is no layer.", "Pass a jc.Layer or a jc.stage.")
        composer.add(key, one)
    spec, placed = composer.spec(name)
    return Chain.of_stages(spec, placed)


@dataclass(slots=True)
class _Draft:
    """A stage whose sizes are still being joined with those of others."""

    name: str
    layer: Layer
    sources: dict[str, tuple[str, str]]
    sizes: dict[Size, sp.Expr]
    spread: dict[Size, Shape]

    @property
    def spec(self) -> Spec:
        return self.layer.spec


class _Composer:
    def __init__(self, what: str) -> None:
        self.what = what
        self.drafts: list[_Draft] = []
        self.taken: set[str] = set()
        self.shapes: dict[tuple[str, str], Shape] = {}
        self.tensors: dict[tuple[str, str], str] = {}
        self.joined: dict[Size, sp.Expr] = {}
        self.axes: dict[Size, Shape] = {}  # what a size of any axes was later found to stand for
        self.own: dict[str, Tensor] = {}

    # Wiring and shapes

    def add(self, name: str, one: Stage) -> None:
        spec = one.layer.spec
        where = f"{self.what}, stage {name!r}"
        by_name = {t.name: t for t in spec.inputs}
        wires = dict(one.wires)
        for wired in wires:
            if wired not in by_name:
                raise SpecError(where, f"{spec.name} has no input {wired!r}.", f"It has {', '.join(by_name)}.")
        if not wires and self.drafts:
            first = next((t.name for t in spec.inputs if t.dtype == "real"), None)
            if first is None:
                raise SpecError(
                    where, f"{spec.name} has no real input.", "Only the first stage can read integers alone."
                )
            wires[first] = self.drafts[-1].name
        elif not self.drafts and not wires:
            wires[spec.inputs[0].name] = INPUT
        draft = _Draft(name, one.layer, {}, {}, {})
        for wired, source in wires.items():
            draft.sources[wired] = self._source(where, source, by_name[wired])
        self._fresh_sizes(draft)
        for wired, given in draft.sources.items():
            if given in self.shapes:
                self._join(where, draft, by_name[wired], self._now(self.shapes[given]), given)
        for wired, given in draft.sources.items():
            self.shapes.setdefault(given, self._shape(draft, by_name[wired]))
        for output in spec.outputs:
            self.shapes[name, output.name] = self._shape(draft, output)
        self.drafts.append(draft)

    def _source(self, where: str, source: str, wired: Tensor) -> tuple[str, str]:
        stage_name, _, output = source.partition(".")
        if stage_name == INPUT:
            return self._shared(where, output or INPUT, wired)
        found = next((d for d in self.drafts if d.name == stage_name), None)
        if found is None:
            known = ", ".join([INPUT, *(d.name for d in self.drafts)])
            raise SpecError(where, f"input {wired.name!r} reads {source!r}, no stage before it.", f"There are {known}.")
        outputs = [t.name for t in found.spec.outputs]
        chosen = output or outputs[0]
        if chosen not in outputs:
            raise SpecError(where, f"stage {stage_name!r} has no output {output!r}.", f"It has {', '.join(outputs)}.")
        kind = next(t.dtype for t in found.spec.outputs if t.name == chosen)
        if kind != wired.dtype:
            raise SpecError(
                where, f"input {wired.name!r} is {wired.dtype}, but {source} is {kind}.", "Wire another input."
            )
        return stage_name, chosen

    def _shared(self, where: str, name: str, wired: Tensor) -> tuple[str, str]:
        """An input of the chain that stages read by its name."""
        check_name("input", name)
        kind = self.own.setdefault(name, wired).dtype
        if kind != wired.dtype:
            raise SpecError(
                where,
                f"input {wired.name!r} is {wired.dtype}, but {_said((INPUT, name))} is {kind}.",
                "Name another input.",
            )
        return INPUT, name

    def _fresh_sizes(self, draft: _Draft) -> None:
        for size in draft.spec.sizes:
            name = size.name if size.name not in self.taken else f"{draft.name}_{size.name}"
            while name in self.taken:
                name += "_"
            self.taken.add(name)
            draft.sizes[size] = Size(name, size.axes, size.typical)

    def _shape(self, draft: _Draft, tensor: Tensor) -> Shape:
        """A stage's tensor in the chain's sizes, an axis of any axes as those it stands for."""
        found: list[sp.Expr] = []
        for extent in tensor.shape:
            if extent in draft.spread:
                found += draft.spread[extent]
            else:
                found.append(extent.xreplace(self._numbers(draft)))
        return self._now(tuple(found))

    def _numbers(self, draft: _Draft) -> dict[sp.Expr, sp.Expr]:
        spread = {size: sp.Mul(*extents) for size, extents in draft.spread.items()}
        scalars = {s: _renamed(s, draft.name) for s in draft.spec.scalars}
        return {**draft.sizes, **spread, **scalars}

    def _now(self, shape: Shape) -> Shape:
        found: list[sp.Expr] = []
        for extent in shape:
            while extent in self.joined and extent not in self.axes:
                extent = self.joined[extent]
            found += self._now(self.axes[extent]) if extent in self.axes else [_settled(extent, self.joined)]
        return tuple(found)

    def _join(self, where: str, draft: _Draft, tensor: Tensor, given: Shape, source: tuple[str, str]) -> None:
        """Make the stage's tensor have the given shape: spread an axis of any axes, then join size by size."""
        facts = f"{tensor.name} has shape {tensor.shape}, but {_said(source)} is {given}."
        loose = [e for e in tensor.shape if isinstance(e, Size) and e.axes == "any" and e not in draft.spread]
        if loose and self._needs_spread(loose[0], draft, tensor, given):
            (size, *others) = loose
            place = tensor.shape.index(size)
            count = len(given) - len(self._shape(draft, tensor)) + 1
            if others or count < 0:
                raise SpecError(where, facts, "Wire inputs whose ranks fit.")
            draft.spread[size] = given[place : place + count]
        own = self._shape(draft, tensor)
        self._pin(given, own)
        given = self._now(given)
        if len(own) != len(given):
            raise SpecError(where, facts, "Wire inputs whose ranks fit.")
        for mine, theirs in zip(own, given, strict=True):
            if not self._unify(_settled(mine, self.joined), _settled(theirs, self.joined)):
                raise SpecError(
                    where, f"{facts} {mine} cannot be {theirs}.", "Bind sizes first, or wire another output."
                )

    def _pin(self, given: Shape, own: Shape) -> None:
        """Let the one axis of any axes that an earlier stage left open be those that it meets."""
        loose = [e for e in given if isinstance(e, Size) and e.axes == "any"]
        count = len(own) - len(given) + 1
        if len(loose) == 1 and count >= 0:
            place = given.index(loose[0])
            met = own[place : place + count]
            if not any(e.has(loose[0]) or (isinstance(e, Size) and e.axes == "any") for e in met):
                alone = Size(loose[0].name, "one", loose[0].typical)
                self.axes[loose[0]] = met if count != 1 else (alone,)
                self.joined[loose[0]] = sp.Mul(*self.axes[loose[0]])

    def _needs_spread(self, size: Size, draft: _Draft, tensor: Tensor, given: Shape) -> bool:
        """Does an axis of any axes meet anything but one size of any axes?"""
        own = self._shape(draft, tensor)
        met = given[tensor.shape.index(size)] if len(given) == len(own) else None
        return not (isinstance(met, Size) and met.axes == "any")

    def _unify(self, mine: sp.Expr, theirs: sp.Expr) -> bool:
        if sp.expand(mine - theirs) == 0:
            return True
        for one, other in ((mine, theirs), (theirs, mine)):
            if isinstance(one, Size) and not other.has(one):
                self.joined[one] = other
                return True
        solved = _solved(mine, theirs)
        if solved is None:
            return False
        self.joined[solved[0]] = solved[1]
        return True

    # The spec

    def spec(self, name: str) -> tuple[Spec, tuple[Placed, ...]]:
        outputs: list[Tensor] = []
        inputs: list[Tensor] = []
        equations: list[sp.Basic] = []
        placed: list[Placed] = []
        read = {source for draft in self.drafts for source in draft.sources.values()}
        names = self._names()
        for draft in self.drafts:
            tensors: dict[str, Tensor] = {}
            for tensor in (*draft.spec.inputs, *draft.spec.outputs, *draft.spec.intermediates):
                source = draft.sources.get(tensor.name, (draft.name, tensor.name))
                tensors[tensor.name] = _tensor(names[source], self._shape(draft, tensor), tensor.dtype)
            rewriter = _Rewriter(tensors, self._final(draft), self._spread(draft))
            equations += [rewriter.equation(e.left, e.right) for e in draft.spec.equations]
            given = (t for t in draft.spec.inputs if draft.sources.get(t.name, (INPUT, INPUT))[0] == INPUT)
            inputs = list(dict.fromkeys([*inputs, *(tensors[t.name] for t in given)]))
            outputs += [
                tensors[t.name]
                for t in draft.spec.outputs
                if draft is self.drafts[-1] or (draft.name, t.name) not in read
            ]
            placed.append(
                Placed(
                    draft.name,
                    draft.layer,
                    dict(draft.sources),
                    {t.name: tensors[t.name].name for t in draft.spec.inputs},
                    {t.name: tensors[t.name].name for t in draft.spec.outputs},
                    {s.name: _renamed(s, draft.name).name for s in draft.spec.scalars},
                    {s.name: e.name for s, e in self._final(draft).items() if isinstance(e, Size)},
                )
            )
        scalars = [_renamed(s, draft.name) for draft in self.drafts for s in draft.spec.scalars]
        doc = " -> ".join(f"{d.name} ({d.spec.name})" for d in self.drafts) + "."
        return make_spec(name, inputs, outputs, equations, scalars, doc), tuple(placed)

    def _names(self) -> dict[tuple[str, str], str]:
        """What each tensor is called: the chain's own input and the last stage's outputs as there, others by stage."""
        sizes = {s.name for d in self.drafts for e in d.sizes.values() for s in _settled(e, self.joined).free_symbols}
        taken = set(sizes)
        found: dict[tuple[str, str], str] = {}

        def give(key: tuple[str, str], wanted: str) -> None:
            while wanted in taken:
                wanted += "_"
            taken.add(wanted)
            found[key] = wanted

        for key, tensor in self.own.items():
            give((INPUT, key), tensor.name if key == INPUT else key)
        last = self.drafts[-1]
        for output in last.spec.outputs:
            give((last.name, output.name), output.name)
        for draft in self.drafts:
            for tensor in (*draft.spec.inputs, *draft.spec.intermediates, *draft.spec.outputs):
                if tensor.name not in draft.sources and (draft.name, tensor.name) not in found:
                    give((draft.name, tensor.name), f"{draft.name}_{tensor.name}")
        return found

    def _final(self, draft: _Draft) -> dict[sp.Expr, sp.Expr]:
        return {k: _settled(v, self.joined) for k, v in self._numbers(draft).items()}

    def _spread(self, draft: _Draft) -> dict[Size, Shape]:
        """The stage's sizes of any axes that stand for given ones here."""
        loose = {size: draft.spread.get(size, (own,)) for size, own in draft.sizes.items() if size.axes == "any"}
        found = {size: self._now(extents) for size, extents in loose.items()}
        return {
            size: shape
            for size, shape in found.items()
            if not (len(shape) == 1 and isinstance(shape[0], Size) and shape[0].axes == "any")
        }


def _said(source: tuple[str, str]) -> str:
    return INPUT if source == (INPUT, INPUT) else ".".join(source)


def _tensor(name: str, shape: Shape, dtype: str) -> Tensor:
    facts: dict[str, bool] = {"integer": True} if dtype == "int64" else {"real": True}
    return Tensor(sp.Symbol(name, **facts), sp.Tuple(*shape), Str(dtype))


def _renamed(scalar: Scalar, stage_name: str) -> Scalar:
    return Scalar(f"{stage_name}_{scalar.name}", scalar.default, scalar.dtype)


def _settled(expr: sp.Expr, joined: Mapping[Size, sp.Expr]) -> sp.Expr:
    """An extent with every size that was joined written in those that are left."""
    while any(size in joined for size in expr.free_symbols):
        expr = expr.xreplace(dict(joined))
    return sp.expand(expr) if not expr.has(sp.floor) else expr


def _solved(mine: sp.Expr, theirs: sp.Expr) -> tuple[Size, sp.Expr] | None:
    """A size that `mine = theirs` gives in the others without a remainder: N + 1 = M, 2 H = 2 (A + B)."""
    difference = sp.expand(mine - theirs)
    for size in sorted(difference.free_symbols, key=str):
        slope = difference.coeff(size)
        rest = sp.expand(difference - slope * size)
        if isinstance(size, Size) and slope.is_Integer and not rest.has(size):
            value = sp.expand(-rest / slope)
            if all(c.is_Integer for c in value.as_coefficients_dict().values()):
                return size, value
    return None


class _Rewriter:
    """A stage's expressions in the chain's tensors and sizes; an index of any axes becomes one for each of them."""

    def __init__(
        self, tensors: Mapping[str, Tensor], numbers: Mapping[sp.Expr, sp.Expr], spread: Mapping[Size, Shape]
    ) -> None:
        self.tensors, self.numbers, self.spread = tensors, dict(numbers), spread

    def equation(self, left: sp.Expr, right: sp.Expr) -> sp.Basic:
        return sp.Eq(self.expr(left), self.expr(right), evaluate=False)

    def indices(self, index: Index) -> tuple[sp.Expr, ...]:
        for size, extents in self.spread.items():
            if (index.start, index.stop) == (0, size):
                names = [index.name if k == 0 else f"{index.name}{k}" for k in range(len(extents))]
                return tuple(
                    Index(sp.Symbol(name, integer=True), sp.Tuple(sp.S.Zero, extent - 1))
                    for name, extent in zip(names, extents, strict=True)
                )
        return (Index(index.args[0], sp.Tuple(*(self.expr(end) for end in index.args[1]))),)

    def expr(self, expr: Any) -> Any:
        if expr in self.numbers:
            return self.numbers[expr]
        if isinstance(expr, Tensor):
            return self.tensors[expr.name]
        if isinstance(expr, Access):
            return Access(self.tensors[expr.base.name], *(i for one in expr.indices for i in self._position(one)))
        if isinstance(expr, Index):
            found = self.indices(expr)
            if len(found) != 1:
                raise SpecError(
                    f"index {expr}", "it stands for several axes here.", "Read whole axes, or bind the rank."
                )
            return found[0]
        if isinstance(expr, sp.Sum | sp.Product):
            limits = [limit for one in expr.limits for limit in self._limits(*one)]
            return expr.func(self.expr(expr.function), *limits) if limits else self.expr(expr.function)
        if isinstance(expr, Reduction):
            return expr.func(self.expr(expr.args[0]), sp.Tuple(*(i for one in expr.args[1] for i in self.indices(one))))
        return expr.func(*map(self.expr, expr.args)) if expr.args else expr

    def _position(self, one: sp.Expr) -> tuple[sp.Expr, ...]:
        return self.indices(one) if isinstance(one, Index) else (self.expr(one),)

    def _limits(self, index: sp.Expr, low: sp.Expr, high: sp.Expr) -> Iterator[tuple[sp.Expr, ...]]:
        found = self.indices(index)
        if len(found) == 1 and not any((low, high) == (0, size - 1) for size in self.spread):
            yield found[0], self.expr(low), self.expr(high)
            return
        for one in found:
            yield one, one.args[1][0], one.args[1][1]


def _paths(stages: Sequence[Placed], of: str, wrt: str) -> tuple[Path, ...]:
    """Every path of stages from one tensor of a chain to another, the last stage first: (stage, output, input)."""
    producer = {placed.outputs[o]: (placed, o) for placed in stages for o in placed.outputs}

    def back(tensor: str) -> Iterator[Path]:
        placed, output = producer[tensor]
        for own, name in placed.inputs.items():
            if name == wrt:
                yield ((placed, output, own),)
            elif name in producer:
                for rest in back(name):
                    yield ((placed, output, own), *rest)

    return tuple(back(of)) if of in producer else ()
