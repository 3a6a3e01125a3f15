"""BERT's sentence vectors in NumPy, one sentence at a time and without padding: what examples/bert.py must agree with.

Tensors may be complex: a step along the imaginary axis then gives derivatives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

Array = NDArray[Any]


def sentence_vectors(tensors: Mapping[str, Array], sentences: Sequence[Sequence[int]], heads: int, eps: float) -> Array:
    """The unit vector of each sentence, given as its own tokens' ids; `tensors` are named as in BERT's checkpoints."""
    return np.stack([_vector(tensors, np.asarray(ids), heads, eps) for ids in sentences])


def _vector(tensors: Mapping[str, Array], ids: Array, heads: int, eps: float) -> Any:
    def normed(x: Array, name: str) -> Any:
        x = x - x.mean(axis=-1, keepdims=True)
        spread = np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps)
        return tensors[f"{name}.weight"] * x / spread + tensors[f"{name}.bias"]

    def affine(x: Array, name: str) -> Any:
        return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

    x = tensors["embeddings.word_embeddings.weight"][ids]
    x = x + tensors["embeddings.position_embeddings.weight"][: len(ids)]
    x = normed(x + tensors["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    depth = 0
    while f"encoder.layer.{depth}.output.dense.weight" in tensors:
        at = f"encoder.layer.{depth}"
        q, k, v = (affine(x, f"{at}.attention.self.{part}") for part in ("query", "key", "value"))
        seen = []
        for one in np.split(np.arange(q.shape[1]), heads):
            scores = np.exp(q[:, one] @ k[:, one].T / np.sqrt(len(one)))
            seen.append(scores / scores.sum(axis=1, keepdims=True) @ v[:, one])
        x = normed(x + affine(np.hstack(seen), f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm")
        wide = affine(x, f"{at}.intermediate.dense")
        wide = wide / 2 * (1 + erf(wide / np.sqrt(2)))
        x = normed(x + affine(wide, f"{at}.output.dense"), f"{at}.output.LayerNorm")
        depth += 1
    mean = x.mean(axis=0)
    return mean / np.sqrt((mean**2).sum())
