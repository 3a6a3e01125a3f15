"""One step of a recurrent network; gates, weights and biases are laid out as PyTorch's cells have them."""

from __future__ import annotations

from typing import Any

from sympy import Eq, Sum, exp, tanh

from jaccomp.layer import Layer
from jaccomp.notation import index, size, tensor

N, I, H = size("N", axes="any", typical=256), size("I", typical=256), size("H", typical=256)  # noqa: E741
n, i, j, k = index("n", N), index("i", I), index("j", H), index("k", H)
x, h, c = tensor("x", N, I), tensor("h", N, H), tensor("c", N, H)
h_next, c_next = tensor("h_next c_next", N, H)


def logistic(z: Any) -> Any:
    return 1 / (1 + exp(-z))


w_ih, w_hh = tensor("w_ih", H, I), tensor("w_hh", H, H)
b_ih, b_hh = tensor("b_ih b_hh", H)
rnn_cell = Layer(
    "rnn_cell",
    inputs=[x, h, w_ih, w_hh, b_ih, b_hh],
    outputs=[h_next],
    equations=[
        Eq(
            h_next[n, j],
            tanh(Sum(w_ih[j, i] * x[n, i], i) + b_ih[j] + Sum(w_hh[j, k] * h[n, k], k) + b_hh[j]),
        ),
    ],
    doc="Simple recurrent cell (Elman, 1990).",
)

q = index("q", 4 * H)
w_ih4, w_hh4 = tensor("w_ih", 4 * H, I), tensor("w_hh", 4 * H, H)
b_ih4, b_hh4 = tensor("b_ih b_hh", 4 * H)
gates = tensor("gates", N, 4 * H)
in_gate, forget_gate, cell_gate, out_gate = tensor("in_gate forget_gate cell_gate out_gate", N, H)
lstm_cell = Layer(
    "lstm_cell",
    inputs=[x, h, c, w_ih4, w_hh4, b_ih4, b_hh4],
    outputs=[h_next, c_next],
    equations=[
        Eq(gates[n, q], Sum(w_ih4[q, i] * x[n, i], i) + b_ih4[q] + Sum(w_hh4[q, k] * h[n, k], k) + b_hh4[q]),
        Eq(in_gate[n, j], logistic(gates[n, j])),
        Eq(forget_gate[n, j], logistic(gates[n, j + H])),
        Eq(cell_gate[n, j], tanh(gates[n, j + 2 * H])),
        Eq(out_gate[n, j], logistic(gates[n, j + 3 * H])),
        Eq(c_next[n, j], forget_gate[n, j] * c[n, j] + in_gate[n, j] * cell_gate[n, j]),
        Eq(h_next[n, j], out_gate[n, j] * tanh(c_next[n, j])),
    ],
    doc="Long short-term memory cell (Hochreiter and Schmidhuber, 1997; Gers, Schmidhuber and Cummins, 2000).",
)

r = index("q", 3 * H)
w_ih3, w_hh3 = tensor("w_ih", 3 * H, I), tensor("w_hh", 3 * H, H)
b_ih3, b_hh3 = tensor("b_ih b_hh", 3 * H)
from_x, from_h = tensor("from_x from_h", N, 3 * H)
reset, update, new = tensor("reset update new", N, H)
gru_cell = Layer(
    "gru_cell",
    inputs=[x, h, w_ih3, w_hh3, b_ih3, b_hh3],
    outputs=[h_next],
    equations=[
        Eq(from_x[n, r], Sum(w_ih3[r, i] * x[n, i], i) + b_ih3[r]),
        Eq(from_h[n, r], Sum(w_hh3[r, k] * h[n, k], k) + b_hh3[r]),
        Eq(reset[n, j], logistic(from_x[n, j] + from_h[n, j])),
        Eq(update[n, j], logistic(from_x[n, j + H] + from_h[n, j + H])),
        Eq(new[n, j], tanh(from_x[n, j + 2 * H] + reset[n, j] * from_h[n, j + 2 * H])),
        Eq(h_next[n, j], (1 - update[n, j]) * new[n, j] + update[n, j] * h[n, j]),
    ],
    doc="Gated recurrent unit (Cho et al., 2014).",
)
