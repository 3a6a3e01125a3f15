"""Cards for the tests of the gallery: one of each kind of record, with text that may be hostile."""

from __future__ import annotations

import re

from jaccomp.calculus.scalar import Convention
from jaccomp.card import (
    Argument,
    BlockCard,
    Card,
    CheckRecord,
    CheckRow,
    Cost,
    Line,
    Note,
    Residual,
    RuleFired,
    SourcePart,
)

HOSTILE = (
    "<img src=x onerror=\"document.title='run'\">",
    "</script><script>document.title='run'</script>",
    "--><svg onload=\"document.title='run'\">",
    "' onfocus='document.title=`run`' autofocus='",
    '" onmouseover="document.title=`run`" data-x="',
    "javascript:document.title='run'",
    "{{ 7 * 7 }}{% raw %}",
    "]]><![CDATA[&amp;&lt;\u202e\u2028\x00\x07\ud800\ufffe",
)


def as_shown(text: str) -> str:
    """The text as a page shows it, which holds no controls, not of direction either, no surrogates or noncharacters."""
    return re.sub(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]", "\ufffd", text
    )


def card(name: str = "softmax", family: str = "softmaxes", say: str = "") -> Card:
    """A whole card, in which every text that a layer's author could choose ends with `say`."""

    def line(text: str, latex: str) -> Line:
        return Line(text + say, say or latex)

    return Card(
        name=name,
        family=family,
        doc=f"Softmax (Bridle, 1990).{say}",
        signature=f"softmax(x[N, D]) -> y[N, D]{say}",
        version="0.1.0",
        spec_hash="5f" * 32,
        arguments=(
            Argument(f"x{say}", "input", "float", f"[N, D]{say}", say or "x"),
            Argument(f"eps{say}", "scalar", "float", "", say or r"\varepsilon", f"1e-05{say}"),
            Argument(f"y{say}", "output", "float", f"[N, D]{say}", say or "y"),
        ),
        equations=(
            line("y[n,i] = exp(x[n,i])/Σ_k exp(x[n,k])", r"y_{n,i} = \frac{e^{x_{n,i}}}{\sum_{k=0}^{D-1} e^{x_{n,k}}}"),
        ),
        intermediates=(line("u0[n] = Σ_k exp(x[n,k])", r"\mathrm{u0}_{n} = \sum_{k=0}^{D-1} e^{x_{n,k}}"),),
        local=(line("∂u0[n]/∂x[n,k] = exp(x[n,k])", r"\frac{\partial u_{n}}{\partial x_{n,k}} = e^{x_{n,k}}"),),
        chain=(line("∂y/∂x = ∂y/∂u0 ∂u0/∂x", r"\frac{\partial y}{\partial x} = \frac{\partial y}{\partial u}"),),
        blocks=(
            BlockCard(
                of=f"y{say}",
                wrt=f"x{say}",
                line=line(
                    "∂y[n,i]/∂x[m,j] = y[n,i] δ(n,m) (δ(i,j) - y[n,j])",
                    r"\frac{\partial y_{n,i}}{\partial x_{m,j}} = y_{n,i} \left(\delta_{i,j} - y_{n,j}\right)",
                ),
                matrix=line("diag(y) - y yᵀ", r"\operatorname{diag}(y) - y y^{\top}"),
                layout="numerator",
                structure=f"block diagonal: diagonal + rank 1{say}",
                rank=f"N D{say}",
                storage=f"2 N D{say}",
                work=f"3 N D{say}",
                norm=f"at most 1/2{say}",
            ),
        ),
        rules=(RuleFired(f"collect{say}", f"a b + a c = a (b + c){say}", (f"a b + a c{say}",), (f"a (b + c){say}",)),),
        vjp=(line("ct_x[n,i] = y[n,i] (ct_y[n,i] - r1[n])", r"\bar{x}_{n,i} = y_{n,i} (\bar{y}_{n,i} - r_{n})"),),
        jvp=(line("t_y[n,i] = y[n,i] (t_x[n,i] - r1[n])", r"\dot{y}_{n,i} = y_{n,i} (\dot{x}_{n,i} - r_{n})"),),
        residuals=(Residual(f"y{say}", f"[N, D]{say}", True, f"it is an output{say}"),),
        costs=(Cost("forward", line("4 N D", "4 N D"), line("8 N D", "8 N D")),),
        conventions=(Convention(f"softmax of a masked row{say}", f"0{say}", f"a convention{say}"),),
        domain=(Note("overflow", line("x > 709", "x > 709"), f"the exponential{say}"),),
        source=(
            SourcePart(f"forward{say}", (f"u0[n] = Σ_k exp(x[n,k]){say}",), f"for n in range(N):{say}\n    pass"),
            SourcePart(f"forward{say}", (), "    return y"),
            SourcePart("bwd", (f"ct_x{say}",), "cdef int f() noexcept nogil:\n    " + "very_long_name = " * 40),
        ),
        checks=CheckRecord(
            "2026-01-02",
            (("jaccomp", "0.1.0"), (f"numpy{say}", "2.4.6")),
            240,
            0.25,
            True,
            (CheckRow("float64", f"vjp ct_x{say}", f"complex step{say}", f"N=3, D=4{say}", 1e-16, 3.5e-15, True),),
        ),
    )
