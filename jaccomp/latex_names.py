"""Names as a mathematician prints them: a user's identifier -> LaTeX that needs amsmath and amssymb alone.

    x -> x    x1, x_1 -> x_{1}    xhat -> \\hat{x}    sigma2 -> \\sigma_{2}    w_ih -> w_{\\mathrm{ih}}
    norm_x -> \\mathrm{norm}_{x}    ct_x -> \\bar{x}    t_x -> \\dot{x}    log_p -> \\mathrm{log\\_p}

Any text is safe: what is no letter, digit or accent that LaTeX has is escaped, or spelled by its code point.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from jaccomp.program import DERIVED

GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "ζ": "zeta", "η": "eta", "θ": "theta",
    "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi", "π": "pi", "ρ": "rho", "σ": "sigma",
    "τ": "tau", "υ": "upsilon", "φ": "phi", "χ": "chi", "ψ": "psi", "ω": "omega", "Γ": "Gamma", "Δ": "Delta",
    "Θ": "Theta", "Λ": "Lambda", "Ξ": "Xi", "Π": "Pi", "Σ": "Sigma", "Υ": "Upsilon", "Φ": "Phi", "Ψ": "Psi",
    "Ω": "Omega",
}  # fmt: skip
LETTERS = {name: f"\\{name}" for name in GREEK.values()} | {
    "eps": r"\varepsilon", "epsilon": r"\varepsilon", "lambda_": r"\lambda", "lam": r"\lambda", "ell": r"\ell",
}  # fmt: skip
"""`lambda_` is how Python has it; omicron and the capitals that look Latin have no command."""

ACCENTS = {"hat": ("hat", "widehat"), "tilde": ("tilde", "widetilde"), "bar": ("bar", "overline"), "dot": ("dot",) * 2}
COMBINING = {
    "\N{COMBINING GRAVE ACCENT}": "grave", "\N{COMBINING ACUTE ACCENT}": "acute",
    "\N{COMBINING CIRCUMFLEX ACCENT}": "hat", "\N{COMBINING TILDE}": "tilde", "\N{COMBINING MACRON}": "bar",
    "\N{COMBINING BREVE}": "breve", "\N{COMBINING DOT ABOVE}": "dot", "\N{COMBINING DIAERESIS}": "ddot",
    "\N{COMBINING CARON}": "check", "\N{COMBINING RING ABOVE}": "mathring",
}  # fmt: skip
FUNCTIONS = frozenset({"log", "exp", "sin", "cos", "tan", "max", "min", "arg", "det", "dim", "inf", "sup", "lim"})
"""A subscript on one of these would be read as the function's: log_p is no logarithm to the base p."""

ESCAPES = {
    "\\": r"\backslash ", "{": r"\{", "}": r"\}", "_": r"\_", "$": r"\$", "&": r"\&", "%": r"\%", "#": r"\#",
    "^": r"\wedge ", "~": r"\sim ", " ": r"\ ",
}  # fmt: skip
PLAIN = re.compile(r"[A-Za-z0-9]")


def latex_name(name: str) -> str:
    """A name of a tensor, size, scalar, index or layer in math mode; a cotangent has a bar, a tangent a dot.

    xhat -> \\hat{x};  ct_x -> \\bar{x};  t_norm_x -> \\dot{\\mathrm{norm}}_{x}
    """
    marks: list[tuple[str, str]] = []
    while (mark := DERIVED.match(name)) and mark[0] != name:
        marks.insert(0, ACCENTS["bar" if mark[0].startswith("ct") else "dot"])
        name = name.removeprefix(mark[0])
    base, accents, below = _parts(name)
    spelled = base
    for short, wide in (*accents, *marks):
        spelled = f"\\{short if _is_single(base) else wide}{{{spelled}}}"
    return f"{spelled}_{{{below}}}" if below else spelled


def latex_access(name: str, indices: Sequence[str]) -> str:
    """A read of the name at indices that are LaTeX already: `x_{n,i}`; a name with a subscript is braced.

    The empty group keeps TeX from unwrapping a brace that holds one accent alone, with its subscript.
    """
    spelled = latex_name(name)
    if not indices:
        return spelled
    base = f"{{{spelled}{{}}}}" if "_{" in spelled else spelled
    return f"{base}_{{{','.join(indices)}}}"


def latex_text(text: str) -> str:
    """Any text, upright and escaped, in math mode."""
    return rf"\mathrm{{{_upright(text)}}}"


def _parts(name: str) -> tuple[str, list[tuple[str, str]], str]:
    """(base, accents, subscript) of a name without marks."""
    head, *rest = name.split("_")
    whole = _letter(name)
    if whole is not None:
        return whole, [], ""
    if not head or not all(rest) or head in FUNCTIONS:
        return latex_text(name), [], ""
    accents = []
    if rest and rest[0] in ACCENTS:
        accents, rest = [ACCENTS[rest[0]]], rest[1:]
    base, digits = _without_digits(head)
    if not accents:
        base, accents = _without_accent(base)
    below = [digits] if digits else []
    below += [_letter(one) or (one if one.isascii() and one.isdigit() else latex_text(one)) for one in rest]
    return _letter(base) or latex_text(base), accents, ",".join(below)


def _without_digits(head: str) -> tuple[str, str]:
    """`x12` -> (x, 12), but `conv2d` and `l2` as they are: the digits end a letter or a Greek name."""
    stem = head.rstrip("0123456789")
    is_subscripted = stem != head and (_letter(stem) is not None or _without_accent(stem)[1] != [])
    return (stem, head[len(stem) :]) if is_subscripted else (head, "")


def _without_accent(head: str) -> tuple[str, list[tuple[str, str]]]:
    """`xhat` -> (x, hat), but `that` of more than one letter before it stays a word."""
    for word, accent in ACCENTS.items():
        stem = head.removesuffix(word)
        if stem != head and _letter(stem) is not None:
            return stem, [accent]
    return head, []


def _letter(name: str) -> str | None:
    """One letter, Latin, Greek or accented, or the name of a Greek one; else None."""
    if name in LETTERS:
        return LETTERS[name]
    if len(name) == 1 and name.isascii() and name.isalpha():
        return name
    if name in GREEK:
        return LETTERS[GREEK[name]]
    spelled = _accented(name) if len(name) == 1 else None
    return spelled


def _accented(character: str) -> str | None:
    """`é` -> \\acute{e}."""
    base, *marks = list(unicodedata.normalize("NFD", character))
    if not (base.isascii() and base.isalpha()) or not marks or any(m not in COMBINING for m in marks):
        return None
    for mark in marks:
        base = f"\\{COMBINING[mark]}{{{base}}}"
    return base


def _upright(text: str) -> str:
    return "".join(_character(one) for one in text)


def _character(one: str) -> str:
    if PLAIN.fullmatch(one):
        return one
    if one in GREEK:
        return f"{LETTERS[GREEK[one]]} "
    return ESCAPES.get(one) or _accented(one) or (one if one in ".,:;!?()[]/+-=*<>|'" else f"U{ord(one):04X}")


def _is_single(base: str) -> bool:
    return not base.startswith((r"\mathrm", "{"))
