"""The library: layers by name, each built, and SymPy imported, only when it is asked for.

    jc.layers.softmax                       a Layer
    jc.layers.names(), jc.layers.families()
    jc.layers.family("softmax")             "softmaxes": the module that writes it

A family is a module of this package, named in the plural so that no layer shares its name.
"""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import TYPE_CHECKING

from jaccomp.errors import UsageError

if TYPE_CHECKING:
    from jaccomp.layer import Layer

FAMILIES: dict[str, tuple[str, ...]] = {
    "activations": (
        "celu", "elu", "gelu", "gelu_tanh", "hard_shrink", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu",
        "log_sigmoid", "mish", "prelu", "quick_gelu", "relu", "relu6", "selu", "sigmoid", "silu", "soft_shrink",
        "softplus", "softsign", "squared_relu", "tanh", "tanh_shrink",
    ),
    "attentions": ("attention", "causal_attention", "masked_attention"),
    "cells": ("gru_cell", "lstm_cell", "rnn_cell"),
    "convolutions": (
        "causal_conv1d", "conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d", "depthwise_conv2d",
    ),
    "embeddings": ("embedding", "embedding_bag", "positional_embedding", "rope"),
    "gates": ("geglu", "glu", "reglu", "swiglu"),
    "joins": ("add", "concat", "dropout", "multiply"),
    "losses": (
        "bce_with_logits", "cross_entropy", "gaussian_nll", "hinge", "huber", "kl_divergence", "l1", "log_cosh", "mse",
        "nll", "poisson_nll", "smooth_l1", "smoothed_cross_entropy", "soft_cross_entropy", "squared_hinge",
        "triplet_margin",
    ),
    "normalisations": (
        "batchnorm", "batchnorm_inference", "groupnorm", "instancenorm", "l2_norm", "l2_normalize", "layernorm",
        "rmsnorm", "scale_shift", "weightnorm",
    ),
    "poolings": (
        "avgpool1d", "avgpool2d", "global_avgpool2d", "global_maxpool2d", "max_pool", "maxpool1d", "maxpool2d",
        "mean_pool", "sum_pool",
    ),
    "products": ("bilinear", "cosine_similarity", "dot", "linear", "matmul", "quadratic", "squared_distance"),
    "softmaxes": ("log_softmax", "logsumexp", "softmax", "softmin"),
}  # fmt: skip
_FAMILY_OF: dict[str, str] = {name: family for family, members in FAMILIES.items() for name in members}


def names() -> tuple[str, ...]:
    """The name of every layer of the library, sorted."""
    return tuple(sorted(_FAMILY_OF))


def families() -> tuple[str, ...]:
    """The name of every family, sorted."""
    return tuple(sorted(FAMILIES))


def family(name: str) -> str:
    """The family of a layer. Raises `UsageError` for a name that the library does not have."""
    found = _FAMILY_OF.get(name)
    if found is None:
        raise UsageError(f"layer {name!r}", "the library has no layer of that name.", _suggestion(name))
    return found


def get(name: str) -> Layer:
    """The layer of that name. Raises `UsageError` for a name that the library does not have."""
    layer: Layer = getattr(import_module(f"{__name__}.{family(name)}"), name)
    layer.family = family(name)
    return layer


def _suggestion(name: str) -> str:
    close = difflib.get_close_matches(name.lower(), names(), n=3, cutoff=0.6)
    if close:
        return f"Did you mean {' or '.join(close)}?"
    return "`jaccomp list` prints all names; a layer of your own is a spec file, specs.py:mylayer."


def __getattr__(name: str) -> Layer:
    if name in _FAMILY_OF:
        return get(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}. {_suggestion(name)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_FAMILY_OF})
