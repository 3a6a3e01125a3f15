"""Golden files: whole texts that a person reviews, written by `pytest --update-goldens`, each used by a test."""

from __future__ import annotations

from pathlib import Path

from identities import IDENTITIES

FOLDER = Path(__file__).parent / "golden"
TEXTBOOK = (
    "softmax", "log_softmax", "logsumexp", "l2_normalize", "layernorm", "rmsnorm", "sigmoid", "tanh", "softplus",
    "gelu", "gelu_tanh", "silu", "linear", "cross_entropy", "bilinear", "squared_distance", "quadratic", "l2_norm",
    "cosine_similarity", "batchnorm", "mse",
)  # fmt: skip
WHOLE = ("softmax", "layernorm", "causal_attention", "conv2d", "embedding", "lstm_cell")
PARTS = ("program", "jacobian", "vjp")
CARDS = ("softmax", "layernorm", "causal_attention", "embedding")


def path(layer: str, part: str) -> Path:
    return FOLDER / layer / f"{part}.txt"


def identity_path(name: str) -> Path:
    """The matrix form of a textbook identity."""
    return FOLDER / "identities" / f"{name}.txt"


def expected() -> set[Path]:
    """Every file that a test uses."""
    return (
        {path(name, "jacobian") for name in TEXTBOOK}
        | {path(name, part) for name in WHOLE for part in PARTS}
        | {path(name, "card") for name in CARDS}
        | set(map(identity_path, IDENTITIES))
    )


def compare(file: Path, text: str, update: bool) -> None:
    """The file holds `text`; with `update` it is written instead. A missing file fails."""
    if update:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert file.exists(), f"{file.relative_to(FOLDER)} is missing: review and write it with pytest --update-goldens"
    assert file.read_text() == text
