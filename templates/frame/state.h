/* The frame of a generated module: from Python's arguments to a kernel's pointers, and back.

   One binder serves every layer. A module defines JC_FRAME and the macros named below, includes the one header again, and then
   fills the tables: they say what the layer's tensors, sizes and scalars are. The functions here bind sizes from shapes, refuse
   what does not fit by name, copy only where layout demands it, allocate, and call the kernels without the GIL.

   A code stands for an integer: below JC_SIZES a size, below JC_SIZES + JC_INTEGERS an integer scalar, else an expression, which
   `jc_compute` evaluates in 128 bits. `v` holds sizes, then integer scalars; `c` the real scalars. Sizes are numbered below 64, as
   are the slots of a kernel, so that sets of them are masks. */
#ifndef NPY_NO_DEPRECATED_API
#define NPY_NO_DEPRECATED_API NPY_1_7_API_VERSION
#endif
#ifndef NPY_TARGET_VERSION
#define NPY_TARGET_VERSION NPY_1_22_API_VERSION     /* the first with allocators of one's own */
#endif
#include <numpy/arrayobject.h>
#include <structmember.h>
#include <stdarg.h>
#ifdef _OPENMP
#include <omp.h>
#endif
/* Nothing here is worth the half second that -O3 would take over it; what only errors and rare calls need, no optimising at all. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC push_options
#pragma GCC optimize ("Og")
#define JC_COLD __attribute__((cold, noinline, optimize("O0")))
#else
#define JC_COLD
#endif

#define JC_DIMS 64                               /* NumPy's limit on axes */
#define JC_BIG ((Py_ssize_t)1 << 31)             /* integer scalars stay below it, so that index arithmetic stays in 64 bits */
#define JC_DENSE_LIMIT ((Py_ssize_t)1 << 30)     /* bytes of the largest dense Jacobian */

enum { JC_PRIMAL, JC_COTANGENT, JC_TANGENT, JC_SIDES };
enum { JC_FORWARD, JC_FWD, JC_BWD, JC_JVP, JC_PROGRAMS };
enum { JC_OUT, JC_THREADS, JC_WRT, JC_OF, JC_FORM, JC_OPTIONS };

typedef __int128 jc_wide;
typedef int (*jc_kernel)(void **arrays, const Py_ssize_t *v, const double *c, int threads);

typedef struct { const char *name, *shape; int rank, axes, any, integer; } jc_tensor;       /* axes: where in jc_codes; any: axis or -1 */
typedef struct { const char *name; int integer, at, given; long long whole; double real; } jc_scalar;
typedef struct { const char *text, *where; uint64_t needs; } jc_expression;                 /* where: the tensor it is an extent of */
typedef struct { int code, size, factor, rest; } jc_solution;                               /* code = factor * size + rest */
typedef struct { int side, tensor; uint64_t reads; } jc_slot;                               /* reads: the inputs an output needs */
typedef struct { const char *text; int axis, low, high, extent, guards, nguards; } jc_corner;
typedef struct { const char *text; int side, tensor, axis, low, high, extent, empty; } jc_scan;  /* empty: a range with no value is fine */
typedef struct {
    int inputs, outputs, slots, corners, ncorners, scans, nscans, blas;
    uint64_t scalars;                            /* those it reads, or that extents do */
    jc_kernel of[2];                             /* float32, float64 */
} jc_program;

static const char *const jc_name, *const jc_call_text;
static const jc_tensor jc_tensors[JC_TENSORS + 1];           /* inputs, outputs, then what else the backward function keeps */
static const jc_scalar jc_scalars[JC_SCALARS + 1];
static const char *const jc_size_names[JC_SIZES + 1];
static const int jc_any_of[JC_SIZES + 1];                    /* its place among the sizes of any number of axes, or -1 */
static const jc_expression jc_expressions[JC_EXPRESSIONS + 1];
static const jc_solution jc_solutions[JC_SOLUTIONS + 1];
static const int jc_codes[JC_CODES + 1];
static const jc_slot jc_slots[JC_SLOTS + 1];
static const jc_corner jc_corners[JC_CORNERS + 1];
static const jc_scan jc_scans[JC_SCANS + 1];
static const int jc_kept[JC_KEPT + 1];                       /* the tensors that the backward function reads */
static const int jc_inplace[JC_INPLACE + 1][2];              /* (output, input): forward may write the one over the other */
static jc_program jc_programs[JC_PROGRAMS];
static jc_wide jc_compute(int which, const Py_ssize_t *v, int *bad);

#define JC_KEYS (JC_INPUTS + JC_SCALARS + JC_SIZES + JC_OPTIONS)
#define JC_SIZE_KEY (JC_INPUTS + JC_SCALARS)
#define JC_OPTION_KEY (JC_INPUTS + JC_SCALARS + JC_SIZES)
static const char *const jc_key_names[JC_KEYS];
static PyObject *jc_keys[JC_KEYS], *jc_outputs_type, *jc_residuals_type, *jc_state_name;
static PyTypeObject *jc_pullback_type;

/* Floor division and remainder as Python's; a division by zero sets *bad. */
static inline jc_wide jc_wide_div(jc_wide a, jc_wide b, int *bad) {
    if (b == 0) { *bad = 1; return 0; }
    jc_wide q = a / b;
    return q - ((a % b != 0) && ((a < 0) != (b < 0)));
}
static inline jc_wide jc_wide_mod(jc_wide a, jc_wide b, int *bad) { return a - b * jc_wide_div(a, b, bad); }
static inline jc_wide jc_wide_min(jc_wide a, jc_wide b) { return a < b ? a : b; }
static inline jc_wide jc_wide_max(jc_wide a, jc_wide b) { return a > b ? a : b; }

/* What a call knows once its arguments are bound, and what a residual remembers of it. */
typedef struct {
    Py_ssize_t v[JC_SIZES + JC_INTEGERS + 1];
    double c[JC_SCALARS + 1];
    uint64_t known, given, wrt;                  /* sizes; scalars; inputs to be differentiated by */
    int real, threads;                           /* -1 unknown, 0 float32, 1 float64; 0 threads: as many as there are */
    int leads[JC_ANYS + 1];                      /* how many leading axes a size of any number of them stands for, and which */
    npy_intp lead[JC_ANYS + 1][JC_ANYS ? JC_DIMS : 1];
} jc_state;

typedef struct {
    jc_state s;
    const char *what;
    int voter;                                   /* whose dtype decided: side * JC_TENSORS + tensor, or -1 */
    int origin[JC_SIZES + 1], origin_axis[JC_SIZES + 1];     /* what bound a size: as voter; -1 a keyword; -2 the forward call */
    int nd[JC_SIDES][JC_TENSORS + 1];            /* -1 where absent */
    const npy_intp *dims[JC_SIDES][JC_TENSORS + 1];
    PyArrayObject *a[JC_SIDES][JC_TENSORS + 1];
    unsigned char weak[JC_SIDES][JC_TENSORS + 1];
} jc_call;

static void jc_open(jc_call *k, const char *what) {
    memset(k, 0, sizeof *k);
    memset(k->nd, -1, sizeof k->nd);
    k->what = what;
    k->s.real = -1;
    k->voter = -1;
}

static void jc_close(jc_call *k) {
    for (int s = 0; s < JC_SIDES; ++s)
        for (int t = 0; t < JC_TENSORS; ++t) Py_XDECREF(k->a[s][t]);
}

/* ------------------------------------------------------------------------------------------------------------------- errors */

/* Raise `what: message` and return -1. */
JC_COLD static int jc_fail(PyObject *type, const jc_call *k, const char *format, ...) {
    va_list values;
    va_start(values, format);
    PyObject *message = PyUnicode_FromFormatV(format, values);
    va_end(values);
    if (message) PyErr_Format(type, "%s: %U", k->what, message);
    Py_XDECREF(message);
    return -1;
}

/* "ndarray" */
JC_COLD static const char *jc_type_name(PyObject *value) {
    const char *name = Py_TYPE(value)->tp_name, *dot = strrchr(name, '.');
    return dot ? dot + 1 : name;
}

JC_COLD static PyObject *jc_tuple(int nd, const npy_intp *dims) {
    PyObject *result = PyTuple_New(nd);
    for (int d = 0; result && d < nd; ++d) {
        PyObject *one = PyLong_FromSsize_t(dims[d]);
        if (!one) { Py_CLEAR(result); break; }
        PyTuple_SET_ITEM(result, d, one);
    }
    return result;
}

/* "x", "ct_y", "t_x" */
JC_COLD static PyObject *jc_label(int side, int t) {
    static const char *const marks[] = {"", "ct_", "t_"};
    return PyUnicode_FromFormat("%s%s", marks[side], jc_tensors[t].name);
}

static int jc_first_axis(const jc_call *k, int side, int t, int axis, int *count) {
    int any = jc_tensors[t].any, extra = k->nd[side][t] - jc_tensors[t].rank;
    *count = axis == any ? extra + 1 : 1;
    return any >= 0 && axis > any ? axis + extra : axis;
}

/* "64 in x (8, 64), axis 1": the value that an axis of an argument has. */
JC_COLD static PyObject *jc_seen(const jc_call *k, int side, int t, int axis) {
    int count, first = jc_first_axis(k, side, t, axis, &count);
    PyObject *label = jc_label(side, t), *shape = jc_tuple(k->nd[side][t], k->dims[side][t]), *value, *result = NULL;
    value = count == 1 ? PyLong_FromSsize_t(k->dims[side][t][first]) : jc_tuple(count, k->dims[side][t] + first);
    if (label && shape && value) {
        if (count == 1) result = PyUnicode_FromFormat("%R in %U %R, axis %d", value, label, shape, first);
        else if (count == 0) result = PyUnicode_FromFormat("() in %U %R", label, shape);
        else result = PyUnicode_FromFormat("%R in %U %R, axes %d to %d", value, label, shape, first, first + count - 1);
    }
    Py_XDECREF(label); Py_XDECREF(shape); Py_XDECREF(value);
    return result;
}

/* What bound a size. */
JC_COLD static PyObject *jc_bound(const jc_call *k, int size) {
    int from = k->origin[size];
    if (from >= 0) return jc_seen(k, from / JC_TENSORS, from % JC_TENSORS, k->origin_axis[size]);
    PyObject *value = jc_any_of[size] >= 0 ? jc_tuple(k->s.leads[jc_any_of[size]], k->s.lead[jc_any_of[size]])
                                           : PyLong_FromSsize_t(k->s.v[size]);
    PyObject *result = value ? PyUnicode_FromFormat(from == -1 ? "%R by keyword" : "%R in the forward call", value) : NULL;
    Py_XDECREF(value);
    return result;
}

JC_COLD static const char *jc_code_text(int code) {
    if (code < JC_SIZES) return jc_size_names[code];
    for (int i = 0; i < JC_SCALARS; ++i)
        if (jc_scalars[i].integer && JC_SIZES + jc_scalars[i].at == code) return jc_scalars[i].name;
    return jc_expressions[code - JC_SIZES - JC_INTEGERS].text;
}

static uint64_t jc_code_needs(int code) {
    if (code < JC_SIZES) return (uint64_t)1 << code;
    return code < JC_SIZES + JC_INTEGERS ? 0 : jc_expressions[code - JC_SIZES - JC_INTEGERS].needs;
}

static inline jc_wide jc_value(const jc_call *k, int code, int *bad) {
    return code < JC_SIZES + JC_INTEGERS ? k->s.v[code] : jc_compute(code - JC_SIZES - JC_INTEGERS, k->s.v, bad);
}

/* " (H is 3 in c (4, 3), axis 1)": the sizes that an expression is made of, or "". */
JC_COLD static PyObject *jc_because(const jc_call *k, uint64_t needs) {
    PyObject *text = PyUnicode_FromString("");
    int first = 1;
    for (int s = 0; text && s < JC_SIZES; ++s) {
        if (!(needs >> s & 1)) continue;
        PyObject *bound = jc_bound(k, s);
        PyObject *next = bound ? PyUnicode_FromFormat("%U%s%s is %U", text, first ? " (" : "; ", jc_size_names[s], bound) : NULL;
        Py_XDECREF(bound);
        Py_SETREF(text, next);
        first = 0;
    }
    if (text && !first) Py_SETREF(text, PyUnicode_FromFormat("%U)", text));
    return text;
}
