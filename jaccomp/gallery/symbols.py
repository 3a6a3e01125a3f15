"""What each LaTeX command of a formula stands for: the tables that `mathml` reads by."""

from __future__ import annotations

from collections.abc import Callable

_GREEK = (
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi",
    "omicron", "pi", "rho", "varsigma", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega",
)  # fmt: skip

IDENTIFIERS: dict[str, str] = {
    **{rf"\{name}": chr(0x3B1 + k) for k, name in enumerate(_GREEK)},
    **{rf"\{name.capitalize()}": chr(0x391 + k) for k, name in enumerate(_GREEK) if name != "varsigma"},
    r"\varepsilon": "ε",
    r"\epsilon": "ϵ",
    r"\vartheta": "ϑ",
    r"\varphi": "φ",
    r"\phi": "ϕ",
    r"\varrho": "ϱ",
    r"\partial": "∂",
    r"\infty": "∞",
    r"\top": "⊤",
    r"\ell": "ℓ",
    r"\emptyset": "∅",
    r"\backslash": "\\",
    r"\_": "_",
    r"\#": "#",
    r"\%": "%",
    r"\$": "$",
}

OPERATORS: dict[str, str] = {
    **{one: one for one in "+=<>,;:!./?"},
    "-": "−",
    "*": "∗",
    r"\lt": "<",
    r"\gt": ">",
    r"\le": "≤",
    r"\leq": "≤",
    r"\ge": "≥",
    r"\geq": "≥",
    r"\ne": "≠",
    r"\neq": "≠",
    r"\approx": "≈",
    r"\equiv": "≡",
    r"\sim": "∼",
    r"\propto": "∝",
    r"\in": "∈",
    r"\notin": "∉",
    r"\subset": "⊂",
    r"\subseteq": "⊆",
    r"\cup": "∪",
    r"\cap": "∩",
    r"\setminus": "∖",
    r"\wedge": "∧",
    r"\land": "∧",
    r"\vee": "∨",
    r"\lor": "∨",
    r"\neg": "¬",
    r"\forall": "∀",
    r"\exists": "∃",
    r"\nabla": "∇",
    r"\pm": "±",
    r"\mp": "∓",
    r"\cdot": "⋅",
    r"\times": "×",
    r"\div": "÷",
    r"\odot": "⊙",
    r"\otimes": "⊗",
    r"\oplus": "⊕",
    r"\ominus": "⊖",
    r"\oslash": "⊘",
    r"\circ": "∘",
    r"\ast": "∗",
    r"\star": "⋆",
    r"\bullet": "∙",
    r"\to": "→",
    r"\rightarrow": "→",
    r"\leftarrow": "←",
    r"\mapsto": "↦",
    r"\Rightarrow": "⇒",
    r"\Leftrightarrow": "⇔",
    r"\iff": "⇔",
    r"\implies": "⇒",
    r"\gets": "←",
    r"\coloneqq": "≔",
    r"\colon": ":",
    r"\mid": "∣",
    r"\prime": "′",
    r"\ldots": "…",
    r"\dots": "…",
    r"\cdots": "⋯",
    r"\vdots": "⋮",
    r"\ddots": "⋱",
    r"\bmod": "mod",
    r"\&": "&",
}

DELIMITERS: dict[str, str] = {
    **{one: one for one in "()[]|"},
    r"\{": "{",
    r"\}": "}",
    r"\lbrace": "{",
    r"\rbrace": "}",
    r"\lbrack": "[",
    r"\rbrack": "]",
    r"\lfloor": "⌊",
    r"\rfloor": "⌋",
    r"\lceil": "⌈",
    r"\rceil": "⌉",
    r"\langle": "⟨",
    r"\rangle": "⟩",
    r"\lvert": "|",
    r"\rvert": "|",
    r"\vert": "|",
    r"\lVert": "‖",
    r"\rVert": "‖",
    r"\Vert": "‖",
    r"\|": "‖",
}

BIG: dict[str, str] = {
    r"\sum": "∑",
    r"\prod": "∏",
    r"\int": "∫",
    r"\bigoplus": "⨁",
    r"\bigotimes": "⨂",
    r"\bigcup": "⋃",
    r"\bigcap": "⋂",
    r"\bigwedge": "⋀",
    r"\bigvee": "⋁",
}

LIMITS: dict[str, str] = {
    **{rf"\{name}": name for name in ("max", "min", "sup", "inf", "lim", "det")},
    r"\argmax": "arg max",
    r"\argmin": "arg min",
}

FUNCTIONS: dict[str, str] = {
    rf"\{name}": name
    for name in (
        *("exp", "log", "ln", "sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "coth"),
        *("arcsin", "arccos", "arctan", "dim", "ker", "deg", "arg", "Pr", "gcd"),
    )
}

SPACES: dict[str, str] = {
    r"\,": "0.167em",
    r"\:": "0.222em",
    r"\>": "0.222em",
    r"\;": "0.278em",
    r"\!": "-0.167em",
    "\\ ": "0.333em",
    "~": "0.333em",
    r"\quad": "1em",
    r"\qquad": "2em",
}

# Command -> the mark, and whether it grows with what it stands over.
ACCENTS: dict[str, tuple[str, str]] = {
    r"\hat": ("ˆ", "false"),
    r"\widehat": ("^", "true"),
    r"\bar": ("¯", "false"),
    r"\overline": ("¯", "true"),
    r"\tilde": ("˜", "false"),
    r"\widetilde": ("~", "true"),
    r"\dot": ("˙", "false"),
    r"\ddot": ("¨", "false"),
    r"\vec": ("→", "false"),
    r"\check": ("ˇ", "false"),
    r"\breve": ("˘", "false"),
    r"\acute": ("´", "false"),
    r"\grave": ("`", "false"),
    r"\mathring": ("˚", "false"),
}


def _alphabet(capitals: int, smalls: int, digits: int = 0, other: dict[str, str] | None = None) -> Callable[[str], str]:
    """Text with its letters taken from a mathematical alphabet: MathML Core has no variants but these characters."""

    def letter(one: str) -> str:
        if other and one in other:
            return other[one]
        for first, start in (("A", capitals), ("a", smalls), ("0", digits)):
            size = 10 if first == "0" else 26
            if start and 0 <= ord(one) - ord(first) < size:
                return chr(start + ord(one) - ord(first))
        return one

    return lambda text: "".join(map(letter, text))


_DOUBLE = dict(zip("CHNPQRZ", "ℂℍℕℙℚℝℤ", strict=True))
_SCRIPT = dict(zip("BEFHILMR", "ℬℰℱℋℐℒℳℛ", strict=True))

ALPHABETS: dict[str, Callable[[str], str]] = {
    r"\mathrm": lambda text: text,
    r"\mathit": lambda text: text,
    r"\mathnormal": lambda text: text,
    r"\mathbf": _alphabet(0x1D400, 0x1D41A, 0x1D7CE),
    r"\boldsymbol": _alphabet(0x1D468, 0x1D482, 0x1D7CE),
    r"\bm": _alphabet(0x1D468, 0x1D482, 0x1D7CE),
    r"\mathsf": _alphabet(0x1D5A0, 0x1D5BA, 0x1D7E2),
    r"\mathtt": _alphabet(0x1D670, 0x1D68A, 0x1D7F6),
    r"\mathbb": _alphabet(0x1D538, 0x1D552, 0x1D7D8, _DOUBLE),
    r"\mathcal": _alphabet(0x1D49C, 0, 0, _SCRIPT),
}
