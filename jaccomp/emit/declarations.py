"""What the loops of a module need declared: pointer types, and the header's functions that occur in their text."""

from __future__ import annotations

import re

TYPES = (
    ("in_f32", "const float *", "const float *restrict"),
    ("in_f64", "const double *", "const double *restrict"),
    ("in_i64", "const int64_t *", "const int64_t *restrict"),
    ("out_f32", "float *", "float *restrict"),
    ("out_f64", "double *", "double *restrict"),
    ("out_i64", "int64_t *", "int64_t *restrict"),
)
VECTORS = (("lanes_f32", "float ", "jc_lanes_f32"), ("lanes_f64", "double ", "jc_lanes_f64"))
INTEGER = {
    "jc_floordiv": 2, "jc_ceildiv": 2, "jc_mod": 2, "jc_min": 2, "jc_max": 2, "jc_lower": 2, "jc_upper": 2,
    "jc_from": 3, "jc_until": 3, "jc_blocks": 2,
}  # fmt: skip
OF_A_DTYPE = {
    "load": "{lanes} {name}(const {real} *)",
    "load_part": "{lanes} {name}(const {real} *, Py_ssize_t)",
    "store": "void {name}({real} *, {lanes})",
    "store_part": "void {name}({real} *, {lanes}, Py_ssize_t)",
    "pass": "void {name}({real} *, {lanes}, bint)",
    "load_evens": "{lanes} {name}(const {real} *)",
    "load_odds": "{lanes} {name}(const {real} *)",
    "load_evens_part": "{lanes} {name}(const {real} *, Py_ssize_t)",
    "load_odds_part": "{lanes} {name}(const {real} *, Py_ssize_t)",
    "pass_pairs": "void {name}({real} *, {lanes}, {lanes}, bint)",
    "store_pairs_part": "void {name}({real} *, {lanes}, {lanes}, Py_ssize_t)",
    "zeros": "{lanes} {name}()",
    "first": "{lanes} {name}({lanes}, Py_ssize_t)",
    "looks_ahead": "int {name}(Py_ssize_t, Py_ssize_t, bint)",
    "ahead": "void {name}(const {real} *, int)",
    "if_long": "Py_ssize_t {name}(Py_ssize_t, Py_ssize_t)",
    "spread": "{lanes} {name}({real})",
    "first_or": "{lanes} {name}({lanes}, Py_ssize_t, {real})",
    "each_exp": "{lanes} {name}({lanes})",
    "each_max": "{lanes} {name}({lanes}, {lanes})",
    "each_min": "{lanes} {name}({lanes}, {lanes})",
    "total": "{real} {name}(const {lanes} *, int)",
    "most_max": "{real} {name}(const {lanes} *, int)",
    "most_min": "{real} {name}(const {lanes} *, int)",
    "streams": "bint {name}(const {real} *, Py_ssize_t)",
    "before": "Py_ssize_t {name}(const {real} *, Py_ssize_t, Py_ssize_t)",
    "beside": "{real} *{name}({real} *, {real} *, Py_ssize_t, Py_ssize_t)",
    "leave": "void {name}({real} *, const {real} *, Py_ssize_t)",
    "copy": "void {name}({real} *, const {real} *, const {real} *, Py_ssize_t, Py_ssize_t)",
    "fill": "void {name}({real} *, Py_ssize_t, {real})",
    "order": "{whole} {name}({real})",
    "later": "{whole} {name}({whole}, {whole})",
    "ordered": "{real} {name}({whole})",
    "greatest": "void {name}({real} *, const {real} *, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, "
    "Py_ssize_t)",
    "greatest_at": "void {name}({real} *, int64_t *, const {real} *, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, "
    "Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t)",
    "gemm": "void {name}(bint, bint, Py_ssize_t, Py_ssize_t, Py_ssize_t, {real}, const {real} *, Py_ssize_t, "
    "const {real} *, Py_ssize_t, bint, {real} *, Py_ssize_t, Py_ssize_t)",
    "contract": "void {name}({real} *, const {real} *, const {real} *, const {real} *, {real}, const Py_ssize_t *, "
    "const void *)",
    "prepare": "void *{name}(const {real} *, const Py_ssize_t *)",
    "forget": "void {name}(void *)",
}
OF_A_DTYPE |= {f"least{of}": OF_A_DTYPE[f"greatest{of}"] for of in ("", "_at")}
"""Functions of one dtype that are none of numbers alone; whole vectors Cython takes for numbers."""
OTHERS = {
    "jc_small": "ctypedef struct jc_small:\n        pass",
    "jc_bytes": "size_t jc_bytes(Py_ssize_t, size_t)",
    "jc_alloc": "void *jc_alloc(size_t)",
    "jc_free": "void jc_free(void *)",
    "jc_borrow": "void *jc_borrow(jc_small *, size_t)",
    "jc_run_nest": "int jc_run_nest(int (*)(void *, Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept nogil, void *, "
    "Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t)",
    "jc_return": "void jc_return(jc_small *, void *)",
    "jc_stream_fence": "void jc_stream_fence()",
}
BINARY = ("max", "min", "pow", "atan2")


def declarations(text: str, header: str) -> str:
    """Cython declarations for the loops in `text`, of functions that `header` defines, in alphabetical order."""
    lines = ["from libc.stdint cimport int32_t, int64_t"]
    lines += ["", f'cdef extern from "{header}" nogil:']
    lines += [f'    ctypedef {base}{name} "{spelled}"' for name, base, spelled in TYPES]
    found = set(re.findall(r"\bjc_\w+", text))
    if any(name.startswith("jc_load_") for name in found):
        lines += [f'    ctypedef {base}{name} "{spelled}"' for name, base, spelled in VECTORS]
        lines += ["    Py_ssize_t JC_LANES_f32", "    Py_ssize_t JC_LANES_f64"]
    for name in sorted(found, key=lambda one: (one != "jc_small", one)):
        lines += [f"    {line}" for line in _function(name)]
    if "JC_INF" in text:
        lines.append("    double JC_INF")
    return "\n".join(lines) + "\n"


def _function(name: str) -> list[str]:
    if name in INTEGER:
        return [f"Py_ssize_t {name}({', '.join(['Py_ssize_t'] * INTEGER[name])})"]
    if name in OTHERS:
        return OTHERS[name].split("\n")
    suffix = "f32" if name.endswith("_f32") else "f64"
    kind, whole = {"f32": ("float", "int32_t"), "f64": ("double", "int64_t")}[suffix]
    stem = name.removeprefix("jc_").removesuffix(f"_{suffix}")
    if stem in OF_A_DTYPE:
        return [OF_A_DTYPE[stem].format(name=name, real=kind, whole=whole, lanes=f"lanes_{suffix}")]
    return [f"{kind} {name}({', '.join([kind] * (2 if stem in BINARY else 1))})"]
