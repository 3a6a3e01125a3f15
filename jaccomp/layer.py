"""Layer: a spec with its verbs. What is derived from a layer is a layer again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import sympy as sp

from jaccomp import display, notation, pipeline
from jaccomp.calculus.vjp import real_inputs, real_outputs
from jaccomp.errors import SpecError, UsageError
from jaccomp.jacobian import Jacobian
from jaccomp.normalise import normalise
from jaccomp.pipeline import Derivation
from jaccomp.printing import program_text
from jaccomp.program import Program
from jaccomp.spec import Spec, make_spec

if TYPE_CHECKING:
    from jaccomp.card import Card
    from jaccomp.matrix.form import Layout
    from jaccomp.reference.report import Report


class Layer:
    """A layer written as equations.

        layer = jc.Layer("rmsnorm", inputs=[x, g], scalars=[eps], outputs=[y], equations=[...], doc="...")

    Raises `SpecError`, naming layer, equation and index, when it cannot be what its author meant.
    """

    family: str = ""
    """The family of a layer of the library."""

    def __init__(
        self,
        name: str,
        *,
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        equations: Sequence[Any],
        scalars: Sequence[Any] = (),
        doc: str = "",
    ) -> None:
        self._spec: Spec | None = make_spec(name, inputs, outputs, equations, scalars, doc)
        self.name = name
        self.doc = str(doc)

    @classmethod
    def of_spec(cls, spec: Spec) -> Layer:
        """A layer of a spec that is validated already."""
        layer = cls.__new__(cls)
        layer._spec, layer.name, layer.doc = spec, spec.name, spec.doc
        return layer

    @classmethod
    def of_program(cls, program: Program) -> Layer:
        """A layer that was derived, not written."""
        layer = cls.__new__(cls)
        layer._spec, layer.name, layer.doc = None, program.name, program.doc
        layer.__dict__["program"] = program
        return layer

    def __getstate__(self) -> dict[str, Any]:
        """What the layer is, without what was derived from it."""
        derived = {"prepared", "derivation"} | ({"program"} if self._spec is not None else set())
        return {name: value for name, value in self.__dict__.items() if name not in derived}

    @property
    def spec(self) -> Spec:
        """The equations as written. Raises `UsageError` for a layer that was derived."""
        if self._spec is None:
            raise UsageError(f"layer {self.name!r}", "it was derived, not written, so it has no spec.", "Use .program.")
        return self._spec

    @property
    def is_written(self) -> bool:
        return self._spec is not None

    @cached_property
    def program(self) -> Program:
        """The layer in normal form."""
        return normalise(self.spec)

    @cached_property
    def prepared(self) -> Program:
        """The layer as it is differentiated: stabilised forms recognised, deltas eliminated."""
        return pipeline.prepared(self.program)

    @cached_property
    def derivation(self) -> Derivation:
        """The layer and its simplified VJP."""
        return pipeline.derive(self.prepared)

    def serialise(self) -> str:
        """One text for one layer, the same in every process: what cached sources are found by."""
        if self._spec is not None:
            return self._spec.serialise()
        tensors = [f"{t.name} {t.dtype} {t.shape}" for t in self.program.tensors]
        return "\n".join(
            [program_text(self.program), *tensors, repr(self.program.scalars), repr(self.program.equations)]
        )

    def jacobian(self, of: str | None = None, wrt: str | None = None) -> Jacobian:
        """The exact Jacobian block ∂of/∂wrt; both may be left out where there is only one. Raises `UsageError`."""
        names = self.prepared.labels.name
        outputs = {names(n): n for n in real_outputs(self.prepared)}
        inputs = {names(n): n for n in real_inputs(self.prepared)}
        chosen = [
            _choose(f"jacobian of {self.name!r}", word, given, list(choices))
            for word, given, choices in (("of", of, outputs), ("wrt", wrt, inputs))
        ]
        return pipeline.jacobian(self.derivation, outputs[chosen[0]], inputs[chosen[1]])

    def jacobians(self) -> dict[tuple[str, str], Jacobian]:
        """Every block, by (output, input)."""
        names = self.prepared.labels.name
        return {
            (names(of), names(wrt)): pipeline.jacobian(self.derivation, of, wrt)
            for of in real_outputs(self.prepared)
            for wrt in real_inputs(self.prepared)
        }

    def vjp(self) -> Layer:
        """The layer x..., ct_y... -> ct_x..., which can be shown, compiled and differentiated like any other."""
        return Layer.of_program(self.derivation.vjp)

    def jvp(self) -> Layer:
        """The layer x..., t_x... -> y..., t_y...; of `layer.vjp()`, the Hessian-vector product."""
        return Layer.of_program(pipeline.derive_jvp(self.prepared))

    def pushforward(self, wrt: Sequence[str] | None = None) -> Layer:
        """The layer x..., t_x... -> t_y...: what `jvp` adds to forward, for the real inputs in `wrt`, all by default.

        An input that is not named has no tangent, and costs nothing. Raises `UsageError` for a name that is no real
        input.
        """
        inputs = {self.prepared.labels.name(name): name for name in real_inputs(self.prepared)}
        chosen = [
            inputs[_choose(f"pushforward of {self.name!r}", "wrt", name, list(inputs))]
            for name in (inputs if wrt is None else wrt)
        ]
        return Layer.of_program(pipeline.pushforward(self.prepared, chosen))

    def card(
        self,
        *,
        checks: Callable[[Layer], Report] | Report | Literal[False] | None = None,
        layout: Layout = "numerator",
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> Card:
        """All that is known of the layer and derived from it, as data; `card.as_("markdown")` and others render it.

        `layout` is that of matrices: "numerator", with the rows of the output, or "denominator".

        `checks=jc.check` runs the ladder of references and records what it found, with date and versions; a report that
        it gave before will do too. Raises `UsageError` for anything else.
        """
        from jaccomp.cards.checks import record
        from jaccomp.cards.gather import card
        from jaccomp.reference.report import Report

        report = checks(self) if callable(checks) else checks
        if report is None or report is False:
            return card(self, layout=layout)
        if not isinstance(report, Report):
            raise UsageError(
                f"card of {self.name!r}", f"checks is {checks!r}.", "Pass checks=jc.check, or a report that it gave."
            )
        return card(self, record(report, clock()), layout)

    def bind(self, **values: float | int) -> Layer:
        """The layer with sizes, scalars or inputs fixed: `conv2d.bind(stride=2, KH=3, b=0)`.

        An input is fixed to one number everywhere. Raises `UsageError` for a name that the layer does not have, and
        `SpecError` where the bound layer is none.
        """
        spec = self.spec
        sizes = {s.name: s for s in spec.sizes}
        scalars = {s.name: s for s in spec.scalars}
        inputs = {t.name: t for t in spec.inputs}
        what = f"bind of {self.name!r}"
        where: dict[sp.Expr, sp.Expr] = {}
        fixed: dict[notation.Tensor, sp.Expr] = {}
        for name, value in values.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise UsageError(what, f"{name}={value!r} is not a number.", "Pass an int or a float.")
            number = notation_number(value)
            if name in sizes or (name in scalars and scalars[name].dtype == "int64"):
                if not number.is_Integer or (name in sizes and number < 0):
                    raise UsageError(what, f"{name}={value!r} is not a whole number it can be.", "Pass an int >= 0.")
                where[sizes.get(name, scalars.get(name))] = number
            elif name in scalars:
                where[scalars[name]] = number
            elif name in inputs:
                fixed[inputs[name]] = number
            else:
                known = [*sizes, *scalars, *inputs]
                raise UsageError(what, f"it has no {name!r}.", f"It has {', '.join(known)}.")
        return _bound(spec, where, fixed)

    def __str__(self) -> str:
        return program_text(self.program)

    def __repr__(self) -> str:
        label = self.program.labels.name
        inputs, outputs = (", ".join(map(label, names)) for names in (self.program.inputs, self.program.outputs))
        return f"<Layer {self.name}({inputs}) -> {outputs}>"

    _repr_mimebundle_ = display.mimebundle


def notation_number(value: float | int) -> sp.Expr:
    """A number as written: floats as their shortest decimal."""
    return sp.Integer(value) if isinstance(value, int) else sp.Rational(repr(value))


def _choose(what: str, word: str, given: str | None, choices: list[str]) -> str:
    if given is None:
        if len(choices) == 1:
            return choices[0]
        raise UsageError(what, f"{word} is not given and there are {len(choices)}.", f"{word} is one of {choices}.")
    if given not in choices:
        raise UsageError(what, f"{word}={given!r} is none of its real tensors.", f"{word} is one of {choices}.")
    return given


def _bound(spec: Spec, where: dict[sp.Expr, sp.Expr], fixed: dict[notation.Tensor, sp.Expr]) -> Layer:
    def change(expr: Any) -> Any:
        constants = {
            a: fixed[a.base]
            for a in expr.atoms(notation.Access)
            if isinstance(a.base, notation.Tensor) and a.base in fixed
        }
        constants.update({t: value for t, value in fixed.items() if not t.shape})
        return expr.xreplace(constants).xreplace(where)

    equations = [sp.Eq(e.left.xreplace(where), change(e.right), evaluate=False) for e in spec.equations]
    kept = [t.xreplace(where) for t in spec.inputs if t not in fixed]
    try:
        return Layer(
            spec.name,
            inputs=kept,
            outputs=[t.xreplace(where) for t in spec.outputs],
            equations=equations,
            scalars=[s for s in spec.scalars if s not in where],
            doc=spec.doc,
        )
    except SpecError as error:
        raise SpecError(f"bind of {error.what}", error.facts, error.remedy) from None
