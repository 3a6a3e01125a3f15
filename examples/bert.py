"""BERT as a chain of small layers: six of the library, five written here.

    jaccomp show examples/bert.py
    sentence_encoder(6)                   a chain of 101 stages: ids, mask -> the unit vector of each sentence
    sentence_model(tensors, heads=12)     with weights named as in BERT's checkpoints

Devlin, Chang, Lee and Toutanova, "BERT" (2019): post-norm layers, exact GELU, positions and token types by tables.
Reimers and Gurevych, "Sentence-BERT" (2019): the mean over a sentence's tokens. Each of the eleven is compiled once and
serves every depth. An encoder layer compiled as one kernel instead agrees to 3e-15, but takes four times as long to
compile as all eleven, and its pullback three to seven times as long to run as theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sympy import Eq, Piecewise, Sum, exp, oo, sqrt

import jaccomp as jc
from jaccomp import layers as library
from jaccomp.analysis.model import Model
from jaccomp.composition import Chain, Stage

B, T, D = jc.size("B", typical=8), jc.size("T", typical=32), jc.size("D", typical=384)
H, K = jc.size("H", typical=12), jc.size("K", typical=32)
P, S = jc.size("P", typical=512), jc.size("S", typical=2)
b, t, m, u = jc.index("b", B), jc.index("t", T), jc.index("m", T), jc.index("u", T)
d, h, k, l = jc.index("d", D), jc.index("h", H), jc.index("k", K), jc.index("l", K)  # noqa: E741 - beside k

tokens, placed = jc.tensor("x", B, T, D), jc.tensor("y", B, T, D)
positions, kinds = jc.tensor("positions", P, D), jc.tensor("kinds", S, D)
offset = jc.scalar("offset", default=0, dtype="int64")
add_positions = jc.Layer(
    "add_positions",
    inputs=[tokens, positions, kinds],
    scalars=[offset],
    outputs=[placed],
    equations=[Eq(placed[b, t, d], tokens[b, t, d] + positions[t + offset, d] + kinds[0, d])],
    doc="A learned vector for each position, from `offset` on, and that of the first token type, added.",
)

joined, heads = jc.tensor("x", B, T, H * K), jc.tensor("y", B, H, T, K)
split_heads = jc.Layer(
    "split_heads",
    inputs=[joined],
    outputs=[heads],
    equations=[Eq(heads[b, h, t, k], joined[b, t, h * K + k])],
    doc="The last axis as heads, moved before the positions (Vaswani et al., 2017).",
)

apart, together = jc.tensor("x", B, H, T, K), jc.tensor("y", B, T, H * K)
join_heads = jc.Layer(
    "join_heads",
    inputs=[apart],
    outputs=[together],
    equations=[Eq(together[b, t, h * K + k], apart[b, h, t, k])],
    doc="The heads side by side on the last axis again (Vaswani et al., 2017).",
)

q, key, v, o = (jc.tensor(name, B, H, T, K) for name in ("q", "k", "v", "o"))
s, p = jc.tensor("s p", B, H, T, T)
mask = jc.tensor("mask", B, T, dtype="int64")
padded_attention = jc.Layer(
    "padded_attention",
    inputs=[q, key, v, mask],
    outputs=[o],
    equations=[
        Eq(s[b, h, t, m], Piecewise((Sum(q[b, h, t, l] * key[b, h, m, l], l) / sqrt(K), mask[b, m] > 0), (-oo, True))),
        Eq(p[b, h, t, m], exp(s[b, h, t, m]) / Sum(exp(s[b, h, t, u]), u)),
        Eq(o[b, h, t, k], Sum(p[b, h, t, m] * v[b, h, m, k], m)),
    ],
    doc="Scaled dot-product attention to the tokens of one's own sentence, where the mask is 1, and to no padding.",
)

pooled, count = jc.tensor("y", B, D), jc.tensor("count", B)
mean_of_tokens = jc.Layer(
    "mean_of_tokens",
    inputs=[tokens, mask],
    outputs=[pooled],
    equations=[
        Eq(count[b], Sum(mask[b, m], m)),
        Eq(pooled[b, d], Sum(mask[b, m] * tokens[b, m, d], m) / count[b]),
    ],
    doc="The mean of a sentence's tokens without its padding (Reimers and Gurevych, 2019).",
)


def encoder_layer(name: str, source: str) -> dict[str, Stage]:
    """The stages of one layer, [B, T, D] -> [B, T, D], after `source`; the last is `{name}_norm2`."""
    linear, add, norm, gelu = map(library.get, ("linear", "add", "layernorm", "gelu"))
    stages = {
        "q": jc.stage(linear, x=source),
        "k": jc.stage(linear, x=source),
        "v": jc.stage(linear, x=source),
        "qs": jc.stage(split_heads, x=f"{name}_q"),
        "ks": jc.stage(split_heads, x=f"{name}_k"),
        "vs": jc.stage(split_heads, x=f"{name}_v"),
        "attend": jc.stage(padded_attention, q=f"{name}_qs", k=f"{name}_ks", v=f"{name}_vs", mask="input.mask"),
        "heads": jc.stage(join_heads),
        "proj": jc.stage(linear),
        "sum1": jc.stage(add, x=f"{name}_proj", z=source),
        "norm1": jc.stage(norm),
        "up": jc.stage(linear),
        "act": jc.stage(gelu),
        "down": jc.stage(linear),
        "sum2": jc.stage(add, x=f"{name}_down", z=f"{name}_norm1"),
        "norm2": jc.stage(norm),
    }
    return {f"{name}_{key}": stage for key, stage in stages.items()}


@cache
def sentence_encoder(depth: int) -> Chain:
    """ids [B, T] and mask [B, T], 1 for a token and 0 for padding -> y [B, D], of length 1."""
    stages = {
        "words": jc.stage(library.get("embedding"), ids="input.ids"),
        "places": jc.stage(add_positions),
        "norm": jc.stage(library.get("layernorm")),
    }
    last = "norm"
    for number in range(depth):
        stages |= encoder_layer(f"layer{number}", last)
        last = f"layer{number}_norm2"
    stages["mean"] = jc.stage(mean_of_tokens, x=last, mask="input.mask")
    return jc.chain("sentence_encoder", **stages, unit=library.get("l2_normalize"))


CHECKPOINT = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "proj": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm2": "output.LayerNorm",
}
"""Stage of a layer -> what a checkpoint calls its weight and bias."""


def sentence_model(
    tensors: Mapping[str, ArrayLike], heads: int, eps: float = 1e-12, dtype: Any = np.float64, backend: str = "cython"
) -> Model:
    """The model of a checkpoint's tensors; `model(ids, mask)` are the sentences' vectors [B, D].

    Raises `KeyError` for a tensor that the checkpoint lacks.
    """
    depth = len({name.split(".")[2] for name in tensors if name.startswith("encoder.layer.")})
    table = "embeddings.{}_embeddings.weight"
    named = {"words_table": "word", "places_positions": "position", "places_kinds": "token_type"}
    wanted = {
        **{ours: table.format(theirs) for ours, theirs in named.items()},
        "norm_g": "embeddings.LayerNorm.weight",
        "norm_bias": "embeddings.LayerNorm.bias",
    }
    for number in range(depth):
        for stage, theirs in CHECKPOINT.items():
            weight, bias = ("g", "bias") if stage.startswith("norm") else ("W", "b")
            wanted[f"layer{number}_{stage}_{weight}"] = f"encoder.layer.{number}.{theirs}.weight"
            wanted[f"layer{number}_{stage}_{bias}"] = f"encoder.layer.{number}.{theirs}.bias"
    chain = sentence_encoder(depth)
    constants: dict[str, Any] = {p.sizes["H"]: heads for p in chain.stages if "H" in p.sizes}
    constants |= {p.scalars["eps"]: eps for p in chain.stages if p.layer.name == "layernorm"}
    parameters = {ours: np.asarray(tensors[theirs], dtype) for ours, theirs in wanted.items()}
    return Model(chain, parameters, backend=backend, **constants)
