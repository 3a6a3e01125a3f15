/* The frame of a generated module: from Python's arguments to a kernel's pointers, and back.

   One binder serves every layer. A module defines the macros and tables named below, then includes this file; the tables say what
   the layer's tensors, sizes and scalars are, and the functions here bind sizes from shapes, refuse what does not fit by name,
   copy only where layout demands it, allocate, and call the kernels without the GIL.

   A code stands for an integer: below JC_SIZES a size, below JC_SIZES + JC_INTEGERS an integer scalar, else an expression, which
   `jc_compute` evaluates in 128 bits. `v` holds sizes, then integer scalars; `c` the real scalars. Sizes are numbered below 64, as
   are the slots of a kernel, so that sets of them are masks. */
#if defined(JC_FRAME) && !defined(JC_FRAME_INCLUDED)
#define JC_FRAME_INCLUDED
#ifndef NPY_NO_DEPRECATED_API
#define NPY_NO_DEPRECATED_API NPY_1_7_API_VERSION
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
    int real, threads;                           /* -1 unknown, 0 float32, 1 float64 */
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

/* -------------------------------------------------------------------------------------------------------- arguments by name */

/* values[key] for every argument, borrowed; `keys` is the set of keys that the function takes, the first `positional` of them
   also by position. */
static int jc_parse(const jc_call *k, uint64_t options, int positional, PyObject *const *args, Py_ssize_t n, PyObject *names,
                    PyObject **values) {
    memset(values, 0, JC_KEYS * sizeof *values);
    if (n > positional)
        return jc_fail(PyExc_TypeError, k, "%zd arguments by position, but at most %d: the others are keywords.", n, positional);
    for (Py_ssize_t i = 0; i < n; ++i) values[i] = args[i];
    Py_ssize_t m = names ? PyTuple_GET_SIZE(names) : 0;
    for (Py_ssize_t i = 0; i < m; ++i) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        int key = 0;
        while (key < JC_KEYS && jc_keys[key] != name) ++key;
        for (int j = 0; key == JC_KEYS && j < JC_KEYS; ++j)
            if (PyUnicode_Compare(jc_keys[j], name) == 0) { key = j; break; }
        int option = key - JC_OPTION_KEY;
        if (key == JC_KEYS || (key < JC_INPUTS && !positional) || (option >= 0 && !(options >> option & 1)))
            return jc_fail(PyExc_TypeError, k, "there is no argument %R.", name);
        if (values[key]) return jc_fail(PyExc_TypeError, k, "%U is given twice.", name);
        values[key] = args[n + i];
    }
    return 0;
}

/* The int that a keyword holds, in low..high. */
JC_COLD static int jc_whole(const jc_call *k, const char *name, PyObject *value, Py_ssize_t low, Py_ssize_t high, Py_ssize_t *result) {
    PyObject *whole = PyBool_Check(value) ? NULL : PyNumber_Index(value);
    if (!whole) {
        PyErr_Clear();
        return jc_fail(PyExc_TypeError, k, "%s is %R (%s), but it must be an int.", name, value, jc_type_name(value));
    }
    *result = PyLong_AsSsize_t(whole);
    Py_DECREF(whole);
    if (PyErr_Occurred() || *result < low || *result > high) {
        PyErr_Clear();
        return jc_fail(PyExc_ValueError, k, "%s is %R, but it must be an int from %zd to %zd.", name, value, low, high);
    }
    return 0;
}

static int jc_threads(jc_call *k, PyObject *value) {
    k->s.threads = 1;
#ifdef _OPENMP
    k->s.threads = omp_get_max_threads();
#endif
    if (!value || value == Py_None) return 0;
    if (PyBool_Check(value) || !PyIndex_Check(value))
        return jc_fail(PyExc_TypeError, k, "threads is %R (%s), but it must be an int >= 1, or None.", value, jc_type_name(value));
    PyObject *whole = PyNumber_Index(value);
    if (!whole) return -1;
    int over, most = 64;                         /* more threads than this could only fail to start */
    long long threads = PyLong_AsLongLongAndOverflow(whole, &over);
    Py_DECREF(whole);
    if (over < 0 || (!over && threads < 1))
        return jc_fail(PyExc_ValueError, k, "threads is %R, but it must be an int >= 1, or None.", value);
#ifdef _OPENMP
    if ((over || threads > most) && 4 * omp_get_num_procs() > most) most = 4 * omp_get_num_procs();
#endif
    k->s.threads = over || threads > most ? most : (int)threads;
    return 0;
}

/* Scalars and sizes given by keyword. `needed`: the scalars that must have a value; `defaults`: whether defaults count. */
static int jc_constants(jc_call *k, PyObject **values, uint64_t needed, int defaults) {
    for (int i = 0; i < JC_SCALARS; ++i) {
        const jc_scalar *one = &jc_scalars[i];
        PyObject *value = values[JC_INPUTS + i];
        Py_ssize_t whole = (Py_ssize_t)one->whole;
        double real = one->real;
        if (!value) {
            if (k->s.given >> i & 1) continue;
            if (!(one->given && defaults)) {
                if (needed >> i & 1)
                    return jc_fail(PyExc_TypeError, k, "the scalar %s is missing. Pass it by keyword: %s=...", one->name, one->name);
                continue;
            }
        } else if (one->integer) {
            if (jc_whole(k, one->name, value, 1 - JC_BIG, JC_BIG - 1, &whole)) return -1;
        } else {
            real = PyComplex_Check(value) || PyUnicode_Check(value) ? -1.0 : PyFloat_AsDouble(value);
            if (PyComplex_Check(value) || PyUnicode_Check(value) || (real == -1.0 && PyErr_Occurred())) {
                PyErr_Clear();
                return jc_fail(PyExc_TypeError, k, "%s is %R (%s), but it must be a real number.", one->name, value, jc_type_name(value));
            }
        }
        if (k->s.given >> i & 1) {               /* a residual remembers the forward call's */
            double before = one->integer ? (double)k->s.v[JC_SIZES + one->at] : k->s.c[one->at];
            double now = one->integer ? (double)whole : real;
            if (!(before == now || (before != before && now != now)))
                return jc_fail(PyExc_ValueError, k, "%s is %R, but the forward call had another value.", one->name, value);
            continue;
        }
        if (one->integer) k->s.v[JC_SIZES + one->at] = whole;
        else k->s.c[one->at] = real;
        k->s.given |= (uint64_t)1 << i;
    }
    for (int s = 0; s < JC_SIZES; ++s) {
        PyObject *value = values[JC_SIZE_KEY + s];
        if (!value) continue;
        Py_ssize_t size = 1, before = k->s.v[s];
        int any = jc_any_of[s];
        if (any >= 0) {
            PyObject *axes = PyTuple_Check(value) ? Py_NewRef(value) : PyTuple_Pack(1, value);
            if (!axes) return -1;
            Py_ssize_t count = PyTuple_GET_SIZE(axes);
            if (count > JC_DIMS) { Py_DECREF(axes); return jc_fail(PyExc_ValueError, k, "%s has %zd axes.", jc_size_names[s], count); }
            for (Py_ssize_t d = 0; d < count; ++d) {
                Py_ssize_t one;
                if (jc_whole(k, jc_size_names[s], PyTuple_GET_ITEM(axes, d), 0, JC_BIG - 1, &one)
                    || (__builtin_mul_overflow(size, one, &size) && jc_fail(PyExc_ValueError, k, "%s is too large.", jc_size_names[s]))) {
                    Py_DECREF(axes);
                    return -1;
                }
                k->s.lead[any][d] = one;
            }
            k->s.leads[any] = (int)count;
            Py_DECREF(axes);
        } else if (jc_whole(k, jc_size_names[s], value, 0, JC_BIG - 1, &size)) return -1;
        if ((k->s.known >> s & 1) && before != size)
            return jc_fail(PyExc_ValueError, k, "%s is %R, but the forward call had %zd.", jc_size_names[s], value, before);
        k->s.v[s] = size;
        k->s.known |= (uint64_t)1 << s;
        k->origin[s] = -1;
    }
    return 0;
}

/* ------------------------------------------------------------------------------------------------------------------- arrays */

static const char *jc_numpy_name(int real) { return real ? "float64" : "float32"; }

/* Accept `value` for a tensor: an array of a dtype that serves it. Layout is settled later, when the whole call is known. */
static int jc_take(jc_call *k, int side, int t, PyObject *value) {
    const jc_tensor *one = &jc_tensors[t];
    PyObject *label = NULL;
    PyArrayObject *a;
    int listed = 0, weak = 0;
    if (PyArray_CheckExact(value)) a = (PyArrayObject *)Py_NewRef(value);
    else {
        weak = PyFloat_CheckExact(value) || PyLong_CheckExact(value);
        listed = weak || PyList_Check(value) || PyTuple_Check(value);
        a = (PyArrayObject *)PyArray_FROM_O(value);
        if (!a) {
            PyObject *type, *error, *trace;
            PyErr_Fetch(&type, &error, &trace);
            label = jc_label(side, t);
            if (label) jc_fail(PyExc_TypeError, k, "%U cannot be made an array: %S", label, error ? error : Py_None);
            Py_XDECREF(label); Py_XDECREF(type); Py_XDECREF(error); Py_XDECREF(trace);
            return -1;
        }
        if (PyArray_Check(value) && PyObject_HasAttrString(value, "mask")) {
            label = jc_label(side, t);
            if (label) jc_fail(PyExc_TypeError, k, "%U is a masked array, and its mask would be ignored. Fill it: %U.filled(0).", label, label);
            Py_XDECREF(label);
            Py_DECREF(a);
            return -1;
        }
    }
    int type = PyArray_TYPE(a), real = -1;
    if (one->integer) {
        if (!(PyTypeNum_ISINTEGER(type) && PyArray_CanCastSafely(type, NPY_INT64)) && !(listed && PyArray_SIZE(a) == 0)) goto refused;
    } else if (type == NPY_FLOAT32) real = 0;
    else if (type == NPY_FLOAT64) real = 1;
    else if (listed && PyTypeNum_ISINTEGER(type)) real = 1;
    else goto refused;
    k->a[side][t] = a;
    k->nd[side][t] = PyArray_NDIM(a);
    k->dims[side][t] = PyArray_DIMS(a);
    k->weak[side][t] = (unsigned char)weak;
    if (real < 0 || weak) return 0;
    if (k->s.real < 0) {
        if (!jc_programs[JC_FORWARD].of[real] && !jc_programs[JC_BWD].of[real] && !jc_programs[JC_JVP].of[real]) {
            label = jc_label(side, t);
            if (label) jc_fail(PyExc_TypeError, k, "%U is %s, but this module was built for %s alone. Convert it: %U.astype(np.%s).", label,
                               jc_numpy_name(real), jc_numpy_name(!real), label, jc_numpy_name(!real));
            Py_XDECREF(label);
            return -1;
        }
        k->s.real = real;
        k->voter = side * JC_TENSORS + t;
    } else if (k->s.real != real) {
        label = jc_label(side, t);
        if (k->voter >= 0) {
            PyObject *other = jc_label(k->voter / JC_TENSORS, k->voter % JC_TENSORS);
            if (label && other)
                jc_fail(PyExc_TypeError, k, "%U is %s but %U is %s. Convert one: %U.astype(np.%s), or %U.astype(np.%s).", other, jc_numpy_name(!real),
                        label, jc_numpy_name(real), label, jc_numpy_name(!real), other, jc_numpy_name(real));
            Py_XDECREF(other);
        } else if (label)
            jc_fail(PyExc_TypeError, k, "%U is %s but the forward call was %s. Convert it: %U.astype(np.%s).", label, jc_numpy_name(real),
                    jc_numpy_name(!real), label, jc_numpy_name(!real));
        Py_XDECREF(label);
        return -1;
    }
    return 0;
refused:
    label = jc_label(side, t);
    if (label && one->integer)
        jc_fail(PyExc_TypeError, k, "%U is %S, but it must be an integer array, int64 or int32. Convert it: %U.astype(np.int64).", label,
                PyArray_DESCR(a), label);
    else if (label)
        jc_fail(PyExc_TypeError, k, "%U is %S, but it must be float32 or float64. Convert it: %U.astype(np.float32).", label,
                PyArray_DESCR(a), label);
    Py_XDECREF(label);
    Py_DECREF(a);
    return -1;
}

static int jc_dtype(const jc_call *k, int t) {
    return jc_tensors[t].integer ? NPY_INT64 : k->s.real ? NPY_FLOAT64 : NPY_FLOAT32;
}

/* Every array C-contiguous, aligned, in native order, of the dtype that the kernel reads; copied only where it is not. */
static int jc_settle(jc_call *k) {
    for (int side = 0; side < JC_SIDES; ++side)
        for (int t = 0; t < JC_TENSORS; ++t) {
            PyArrayObject *a = k->a[side][t];
            if (!a || (PyArray_TYPE(a) == jc_dtype(k, t) && PyArray_ISCARRAY_RO(a))) continue;
            PyArray_Descr *descr = PyArray_DescrFromType(jc_dtype(k, t));
            PyArrayObject *b = (PyArrayObject *)PyArray_FromArray(a, descr, NPY_ARRAY_CARRAY_RO | NPY_ARRAY_FORCECAST | NPY_ARRAY_ENSUREARRAY);
            if (!b) return -1;
            k->a[side][t] = b;
            k->dims[side][t] = PyArray_DIMS(b);
            Py_DECREF(a);
        }
    return 0;
}

/* -------------------------------------------------------------------------------------------------------------------- sizes */

static int jc_same_lead(const jc_call *k, int any, int count, const npy_intp *dims) {
    if (k->s.leads[any] != count) return 0;
    for (int d = 0; d < count; ++d)
        if (k->s.lead[any][d] != dims[d]) return 0;
    return 1;
}

JC_COLD static int jc_conflict(const jc_call *k, int size, int side, int t, int axis) {
    PyObject *bound = jc_bound(k, size), *seen = jc_seen(k, side, t, axis);
    if (bound && seen) jc_fail(PyExc_ValueError, k, "%s is %U, but %U.", jc_size_names[size], bound, seen);
    Py_XDECREF(bound); Py_XDECREF(seen);
    return -1;
}

JC_COLD static int jc_wrong_rank(const jc_call *k, int side, int t) {
    PyObject *label = jc_label(side, t), *shape = jc_tuple(k->nd[side][t], k->dims[side][t]);
    int rank = jc_tensors[t].rank - (jc_tensors[t].any >= 0);
    if (label && shape)
        jc_fail(PyExc_ValueError, k, "%U is %R, %d %s, but its shape is %s, %s%d %s.", label, shape, k->nd[side][t],
                k->nd[side][t] == 1 ? "axis" : "axes", jc_tensors[t].shape, jc_tensors[t].any >= 0 ? "at least " : "", rank,
                rank == 1 ? "axis" : "axes");
    Py_XDECREF(label); Py_XDECREF(shape);
    return -1;
}

static int jc_bind_bare(jc_call *k, int side, int t) {
    const jc_tensor *one = &jc_tensors[t];
    const npy_intp *dims = k->dims[side][t];
    for (int axis = 0; axis < one->rank; ++axis) {
        int code = jc_codes[one->axes + axis], count;
        if (code >= JC_SIZES) continue;
        int first = jc_first_axis(k, side, t, axis, &count), any = axis == one->any ? jc_any_of[code] : -1;
        Py_ssize_t extent = 1;
        for (int d = 0; d < count; ++d)
            if (__builtin_mul_overflow(extent, dims[first + d], &extent)) return jc_fail(PyExc_ValueError, k, "%s is too large.", one->name);
        if (k->s.known >> code & 1) {
            if (k->s.v[code] != extent || (any >= 0 && !jc_same_lead(k, any, count, dims + first))) return jc_conflict(k, code, side, t, axis);
            continue;
        }
        k->s.v[code] = extent;
        k->s.known |= (uint64_t)1 << code;
        k->origin[code] = side * JC_TENSORS + t;
        k->origin_axis[code] = axis;
        if (any >= 0) {
            k->s.leads[any] = count;
            for (int d = 0; d < count; ++d) k->s.lead[any][d] = dims[first + d];
        }
    }
    return 0;
}

/* Solve axes whose extent is linear in one unknown size; the number solved, or -1. */
JC_COLD static int jc_solve(jc_call *k, int side, int t) {
    const jc_tensor *one = &jc_tensors[t];
    int solved = 0;
    for (int axis = 0; axis < one->rank; ++axis)
        for (int i = 0; i < JC_SOLUTIONS; ++i) {
            const jc_solution *how = &jc_solutions[i];
            if (how->code != jc_codes[one->axes + axis] || k->s.known >> how->size & 1) continue;
            if ((jc_code_needs(how->factor) | jc_code_needs(how->rest)) & ~k->s.known) continue;
            int count, bad = 0, first = jc_first_axis(k, side, t, axis, &count);
            jc_wide extent = k->dims[side][t][first], factor = jc_value(k, how->factor, &bad), rest = jc_value(k, how->rest, &bad);
            if (bad || factor == 0) continue;
            jc_wide size = jc_wide_div(extent - rest, factor, &bad);
            if (size * factor + rest != extent || size < 0 || size > PY_SSIZE_T_MAX) {
                jc_wide low = size < 0 ? 0 : size;
                PyObject *seen = jc_seen(k, side, t, axis);
                if (seen)
                    jc_fail(PyExc_ValueError, k, "%s is %U, but no %s >= 0 makes it so: %s = %lld gives %lld.", jc_code_text(how->code), seen,
                            jc_size_names[how->size], jc_size_names[how->size], (long long)low, (long long)(low * factor + rest));
                Py_XDECREF(seen);
                return -1;
            }
            k->s.v[how->size] = (Py_ssize_t)size;
            k->s.known |= (uint64_t)1 << how->size;
            k->origin[how->size] = side * JC_TENSORS + t;
            k->origin_axis[how->size] = axis;
            if (jc_any_of[how->size] >= 0) {
                k->s.leads[jc_any_of[how->size]] = 1;
                k->s.lead[jc_any_of[how->size]][0] = (npy_intp)size;
            }
            ++solved;
        }
    return solved;
}

static int jc_check_extents(const jc_call *k, int side, int t) {
    const jc_tensor *one = &jc_tensors[t];
    for (int axis = 0; axis < one->rank; ++axis) {
        int code = jc_codes[one->axes + axis], count, bad = 0, first = jc_first_axis(k, side, t, axis, &count);
        if (code < JC_SIZES || (jc_code_needs(code) & ~k->s.known)) continue;
        jc_wide value = jc_value(k, code, &bad);
        if (bad || value == k->dims[side][t][first]) continue;
        PyObject *seen = jc_seen(k, side, t, axis), *because = jc_because(k, jc_code_needs(code));
        if (seen && because)
            jc_fail(PyExc_ValueError, k, "%s is %lld%U, but %U.", jc_code_text(code), (long long)value, because, seen);
        Py_XDECREF(seen); Py_XDECREF(because);
        return -1;
    }
    return 0;
}

JC_COLD static int jc_unknown(const jc_call *k, uint64_t unknown) {
    int s = 0;
    while (!(unknown >> s & 1)) ++s;
    return jc_fail(PyExc_TypeError, k, "no argument determines the size %s. Pass it by keyword: %s=...", jc_size_names[s], jc_size_names[s]);
}

/* Sizes from the shapes that are present; then every extent >= 0, whether an argument has it or not. */
static int jc_bind(jc_call *k, int complete) {
    for (int side = 0; side < JC_SIDES; ++side)
        for (int t = 0; t < JC_TENSORS; ++t) {
            int nd = k->nd[side][t], extra = nd - jc_tensors[t].rank;
            if (nd < 0) continue;
            if (jc_tensors[t].any < 0 ? extra != 0 : extra < -1) return jc_wrong_rank(k, side, t);
            if (jc_bind_bare(k, side, t)) return -1;
        }
    const uint64_t all = JC_SIZES ? ~(uint64_t)0 >> (64 - (JC_SIZES ? JC_SIZES : 1)) : 0;
    for (int progress = JC_SOLUTIONS > 0; progress && (all & ~k->s.known);) {
        progress = 0;
        for (int side = 0; side < JC_SIDES; ++side)
            for (int t = 0; t < JC_TENSORS; ++t) {
                int solved = k->nd[side][t] < 0 ? 0 : jc_solve(k, side, t);
                if (solved < 0) return -1;
                progress |= solved;
            }
    }
    if (JC_EXPRESSIONS + JC_INTEGERS)
        for (int side = 0; side < JC_SIDES; ++side)
            for (int t = 0; t < JC_TENSORS; ++t)
                if (k->nd[side][t] >= 0 && jc_check_extents(k, side, t)) return -1;
    if (complete && (all & ~k->s.known)) return jc_unknown(k, all & ~k->s.known);
    for (int i = 0; i < JC_EXPRESSIONS; ++i) {
        if (!jc_expressions[i].where || (jc_expressions[i].needs & ~k->s.known)) continue;
        int bad = 0;
        jc_wide value = jc_compute(i, k->s.v, &bad);
        if (!bad && value >= 0 && value <= PY_SSIZE_T_MAX) continue;
        PyObject *because = jc_because(k, jc_expressions[i].needs);
        if (because && bad)
            jc_fail(PyExc_ValueError, k, "the extent of %s, %s, divides by zero%U.", jc_expressions[i].where, jc_expressions[i].text, because);
        else if (because)
            jc_fail(PyExc_ValueError, k, "the extent of %s, %s, would be %lld%U.", jc_expressions[i].where, jc_expressions[i].text,
                    (long long)value, because);
        Py_XDECREF(because);
        return -1;
    }
    return 0;
}

/* The shape of a tensor once sizes are bound, its leading axes restored; the number of axes, or -1. */
static int jc_shape(const jc_call *k, int t, npy_intp *dims) {
    const jc_tensor *one = &jc_tensors[t];
    int nd = 0, bad = 0;
    for (int axis = 0; axis < one->rank; ++axis) {
        int code = jc_codes[one->axes + axis];
        if (axis == one->any) {
            int any = jc_any_of[code];
            if (nd + k->s.leads[any] + one->rank - axis - 1 > JC_DIMS)
                return jc_fail(PyExc_ValueError, k, "%s would have more than %d axes.", one->name, JC_DIMS);
            for (int d = 0; d < k->s.leads[any]; ++d) dims[nd++] = k->s.lead[any][d];
        } else if (nd >= JC_DIMS) return jc_fail(PyExc_ValueError, k, "%s would have more than %d axes.", one->name, JC_DIMS);
        else dims[nd++] = (npy_intp)jc_value(k, code, &bad);
    }
    return nd;
}

/* --------------------------------------------------------------------------------------------- indices: ids and the corners */

static int jc_check_indices(const jc_call *k, const jc_program *p, uint64_t reads) {
    int bad = 0;
    for (int i = 0; i < p->ncorners; ++i) {
        const jc_corner *one = &jc_corners[p->corners + i];
        int empty = 0;
        for (int g = 0; g < one->nguards; ++g) empty |= jc_value(k, jc_codes[one->guards + g], &bad) <= 0;
        if (empty) continue;
        jc_wide low = jc_value(k, one->low, &bad), high = jc_value(k, one->high, &bad), extent = jc_value(k, one->extent, &bad);
        if (!bad && low >= 0 && high < extent) continue;
        PyObject *because = jc_because(k, jc_code_needs(one->low) | jc_code_needs(one->high) | jc_code_needs(one->extent));
        if (because)
            jc_fail(PyExc_IndexError, k, "%s reads %lld to %lld of axis %d, whose extent is %lld%U.", one->text, (long long)low,
                    (long long)high, one->axis, (long long)extent, because);
        Py_XDECREF(because);
        return -1;
    }
    for (int i = 0; i < p->nscans; ++i) {
        const jc_scan *one = &jc_scans[p->scans + i];
        PyArrayObject *ids = k->a[one->side][one->tensor];
        if (!ids) continue;
        jc_wide low = -jc_value(k, one->low, &bad), high = jc_value(k, one->extent, &bad) - jc_value(k, one->high, &bad);
        if (bad || (one->empty && jc_value(k, one->extent, &bad) <= 0)) continue;
        const int64_t *at = (const int64_t *)PyArray_DATA(ids);
        Py_ssize_t n = PyArray_SIZE(ids), j = 0;
        if (low > INT64_MAX || high < INT64_MIN) low = high = 0;
        const int64_t first = low < INT64_MIN ? INT64_MIN : (int64_t)low, stop = high > INT64_MAX ? INT64_MAX : (int64_t)high;
        for (; j < n; ++j) {                     /* a block at a time, so that the test vectorises */
            Py_ssize_t end = j + 256 < n ? j + 256 : n;
            int wrong = 0;
            for (Py_ssize_t m = j; m < end; ++m) wrong |= (at[m] < first) | (at[m] >= stop);
            if (wrong) break;
            j = end - 1;
        }
        if (j >= n) continue;
        while (at[j] >= first && at[j] < stop) ++j;
        npy_intp where[JC_DIMS];
        Py_ssize_t rest = j;
        for (int d = PyArray_NDIM(ids) - 1; d >= 0; --d) { where[d] = rest % PyArray_DIM(ids, d); rest /= PyArray_DIM(ids, d); }
        PyObject *label = jc_label(one->side, one->tensor), *place = jc_tuple(PyArray_NDIM(ids), where);
        PyObject *text = place && PyArray_NDIM(ids) == 1 ? PyUnicode_FromFormat("[%zd]", j)
                       : place && PyArray_NDIM(ids) == 0 ? PyUnicode_FromString("") : place ? PyUnicode_FromFormat("%R", place) : NULL;
        if (label && text) {
            if (PyArray_NDIM(ids) > 1) {         /* (1, 2) -> [1, 2] */
                PyObject *inside = PyUnicode_Substring(text, 1, PyUnicode_GET_LENGTH(text) - 1);
                Py_SETREF(text, inside ? PyUnicode_FromFormat("[%U]", inside) : NULL);
                Py_XDECREF(inside);
            }
            if (text)
                jc_fail(PyExc_IndexError, k, "%U%U is %lld, but %s needs ids from %lld to %lld: axis %d has extent %lld.", label, text,
                        (long long)at[j], one->text, (long long)first, (long long)stop - 1, one->axis, (long long)jc_value(k, one->extent, &bad));
        }
        Py_XDECREF(label); Py_XDECREF(place); Py_XDECREF(text);
        return -1;
    }
    (void)reads;
    return 0;
}

/* --------------------------------------------------------------------------------------------------------------------- BLAS */

#ifdef JC_BLAS
#include <dlfcn.h>
/* SciPy's gemm (see jaccomp_blas.h), found at the first call that needs it: its import takes longer than all else that a module
   does. Counted under the GIL, so that concurrent calls set the process-wide thread count once and restore it once. */
static int jc_blas_calls, jc_blas_before;

JC_COLD static void *jc_capsule(PyObject *table, const char *name) {
    PyObject *capsule = PyDict_GetItemString(table, name);
    return capsule ? PyCapsule_GetPointer(capsule, PyCapsule_GetName(capsule)) : NULL;
}

JC_COLD static int jc_blas_find(void) {
    PyObject *module = PyImport_ImportModule("scipy.linalg.cython_blas"), *table = NULL;
    if (module) table = PyObject_GetAttrString(module, "__pyx_capi__");
    if (table) {
        void *s = jc_capsule(table, "sgemm"), *d = jc_capsule(table, "dgemm");
        jc_sgemm = (jc_sgemm_t)s;
        jc_dgemm = (jc_dgemm_t)d;
        Dl_info info;
        void *library = s && dladdr(s, &info) ? dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD) : NULL;
        static const char *const names[][2] = {{"scipy_openblas_set_num_threads", "scipy_openblas_get_num_threads"},
                                               {"scipy_openblas_set_num_threads64_", "scipy_openblas_get_num_threads64_"},
                                               {"openblas_set_num_threads", "openblas_get_num_threads"},
                                               {"MKL_Set_Num_Threads", "MKL_Get_Max_Threads"}};
        for (size_t i = 0; library && !jc_blas_set && i < sizeof names / sizeof *names; ++i) {
            jc_blas_set = (void (*)(int))dlsym(library, names[i][0]);
            jc_blas_get = (int (*)(void))dlsym(library, names[i][1]);
        }
        if (library) dlclose(library);
    }
    Py_XDECREF(module);
    Py_XDECREF(table);
    if (jc_sgemm && jc_dgemm) return 0;
    PyObject *type, *error, *trace;
    PyErr_Fetch(&type, &error, &trace);
    PyErr_Format(PyExc_ImportError, "%s: its matrix products need SciPy's BLAS, scipy.linalg.cython_blas, which cannot be loaded: %S. "
                 "Install SciPy.", jc_name, error ? error : Py_None);
    Py_XDECREF(type); Py_XDECREF(error); Py_XDECREF(trace);
    return -1;
}

static int jc_blas_enter(void) {
    if (!(jc_sgemm && jc_dgemm) && jc_blas_find()) return -1;
    if (jc_blas_calls++ == 0 && jc_blas_set && jc_blas_get) {
        jc_blas_before = jc_blas_get();
        if (jc_blas_before != 1) jc_blas_set(1);
    }
    return 0;
}

static void jc_blas_leave(void) {
    if (--jc_blas_calls == 0 && jc_blas_set && jc_blas_get && jc_blas_before != 1) jc_blas_set(jc_blas_before);
}
#else
static inline int jc_blas_enter(void) { return 0; }
static inline void jc_blas_leave(void) {}
#endif

/* ------------------------------------------------------------------------------------------------------------------ results */

/* What a kernel writes: `made` is what it writes to, `given` where that is then copied to, if the caller's array has another layout. */
typedef struct { PyArrayObject *made[JC_SLOTS + 1], *given[JC_SLOTS + 1]; } jc_results;

static void jc_drop(jc_results *r) {
    for (int i = 0; i < JC_SLOTS; ++i) { Py_XDECREF(r->made[i]); Py_XDECREF(r->given[i]); }
}

static PyArrayObject *jc_new(const jc_call *k, int t, int zero) {
    npy_intp dims[JC_DIMS];
    int nd = jc_shape(k, t, dims);
    if (nd < 0) return NULL;
    return (PyArrayObject *)(zero ? PyArray_ZEROS(nd, dims, jc_dtype(k, t), 0) : PyArray_EMPTY(nd, dims, jc_dtype(k, t), 0));
}

JC_COLD static void jc_span(PyArrayObject *a, const char **low, const char **high) {
    *low = PyArray_BYTES(a);
    *high = *low + PyArray_ITEMSIZE(a);
    for (int d = 0; d < PyArray_NDIM(a); ++d) {
        npy_intp reach = (PyArray_DIM(a, d) - 1) * PyArray_STRIDE(a, d);
        if (reach < 0) *low += reach; else *high += reach;
    }
}

/* May the two share an element? Bounds first; NumPy solves the rest, within limits beyond which the answer is yes. */
JC_COLD static int jc_overlap(PyArrayObject *a, PyArrayObject *b) {
    if (PyArray_SIZE(a) == 0 || PyArray_SIZE(b) == 0) return 0;
    const char *low, *high, *other_low, *other_high;
    jc_span(a, &low, &high);
    jc_span(b, &other_low, &other_high);
    if (high <= other_low || other_high <= low) return 0;
    if (PyArray_ISCONTIGUOUS(a) && PyArray_ISCONTIGUOUS(b)) return 1;
    PyObject *numpy = PyImport_ImportModule("numpy"), *answer = NULL;
    if (numpy) answer = PyObject_CallMethod(numpy, "shares_memory", "OOi", a, b, 10000);
    int result = answer ? PyObject_IsTrue(answer) : 1;
    Py_XDECREF(numpy); Py_XDECREF(answer);
    PyErr_Clear();
    return result;
}

/* Use the caller's array for a result, if it is what the result would be. */
JC_COLD static int jc_use(const jc_call *k, const jc_slot *slot, PyObject *value, int program, jc_results *r, int at) {
    npy_intp dims[JC_DIMS];
    PyObject *label = jc_label(slot->side, slot->tensor), *want = NULL;
    PyArrayObject *a = (PyArrayObject *)value;
    if (!label) return -1;
    int nd = jc_shape(k, slot->tensor, dims), failed = -1;
    if (nd < 0) goto done;
    if (!PyArray_Check(value)) {
        jc_fail(PyExc_TypeError, k, "out for %U is a %s, but it must be a NumPy array.", label, jc_type_name(value));
        goto done;
    }
    want = jc_tuple(nd, dims);
    if (!want) goto done;
    if (PyArray_NDIM(a) != nd || !PyArray_CompareLists(PyArray_DIMS(a), dims, nd)) {
        PyObject *shape = jc_tuple(PyArray_NDIM(a), PyArray_DIMS(a));
        if (shape) jc_fail(PyExc_ValueError, k, "out for %U is %R, but %U is %R.", label, shape, label, want);
        Py_XDECREF(shape);
        goto done;
    }
    if (PyArray_TYPE(a) != jc_dtype(k, slot->tensor) && !PyArray_EquivTypenums(PyArray_TYPE(a), jc_dtype(k, slot->tensor))) {
        jc_fail(PyExc_TypeError, k, "out for %U is %S, but %U is %s.", label, PyArray_DESCR(a), label,
                jc_tensors[slot->tensor].integer ? "int64" : jc_numpy_name(k->s.real));
        goto done;
    }
    if (!PyArray_ISWRITEABLE(a)) {
        jc_fail(PyExc_ValueError, k, "out for %U is read-only.", label);
        goto done;
    }
    for (int side = 0; side < JC_SIDES; ++side)
        for (int t = 0; t < JC_TENSORS; ++t) {
            PyArrayObject *b = k->a[side][t];
            if (!b || !jc_overlap(a, b)) continue;
            int fine = 0;
            for (int i = 0; i < JC_INPLACE && program == JC_FORWARD; ++i)
                fine |= jc_inplace[i][0] == slot->tensor && jc_inplace[i][1] == t && side == JC_PRIMAL && PyArray_DATA(a) == PyArray_DATA(b)
                        && PyArray_ISCARRAY(a) && PyArray_ISCARRAY(b);
            if (fine) continue;
            PyObject *other = jc_label(side, t);
            if (other) jc_fail(PyExc_ValueError, k, "out for %U overlaps %U in memory. Pass an array of its own.", label, other);
            Py_XDECREF(other);
            goto done;
        }
    for (int i = 0; i < JC_SLOTS; ++i)
        if (r->made[i] && jc_overlap(a, r->given[i] ? r->given[i] : r->made[i])) {
            jc_fail(PyExc_ValueError, k, "out for %U overlaps another array of out. Pass an array for each result.", label);
            goto done;
        }
    if (PyArray_ISCARRAY(a)) r->made[at] = (PyArrayObject *)Py_NewRef(value);
    else {
        r->made[at] = jc_new(k, slot->tensor, 0);
        if (!r->made[at]) goto done;
        r->given[at] = (PyArrayObject *)Py_NewRef(value);
    }
    failed = 0;
done:
    Py_DECREF(label);
    Py_XDECREF(want);
    return failed;
}

/* Arrays for the wanted results of a program. `places` is how many of them `out` may hold, the first ones. */
static int jc_prepare(const jc_call *k, int program, uint64_t wanted, PyObject *out, int places, jc_results *r) {
    const jc_program *p = &jc_programs[program];
    const jc_slot *slots = jc_slots + p->slots + p->inputs;
    memset(r, 0, sizeof *r);
    if (out == Py_None) out = NULL;
    if (out && (PyTuple_Check(out) || PyList_Check(out)) && PySequence_Fast_GET_SIZE(out) != places)
        return jc_fail(PyExc_ValueError, k, "out holds %zd arrays for %d results.", PySequence_Fast_GET_SIZE(out), places);
    if (out && places != 1 && !PyTuple_Check(out) && !PyList_Check(out))
        return jc_fail(PyExc_TypeError, k, "out is a %s, but there are %d results: pass a tuple of arrays.", jc_type_name(out), places);
    for (int i = 0; i < p->outputs; ++i) {
        if (!(wanted >> i & 1)) continue;
        PyObject *given = NULL;
        if (out) {                               /* cotangents stand at the place of their input, results at their own */
            int place = slots[i].side == JC_COTANGENT ? slots[i].tensor : i;
            if (place < places) given = PyTuple_Check(out) || PyList_Check(out) ? PySequence_Fast_GET_ITEM(out, place) : out;
        }
        if (given && given != Py_None) {
            if (jc_use(k, &slots[i], given, program, r, i)) return -1;
        } else {
            r->made[i] = jc_new(k, slots[i].tensor, 0);
            if (!r->made[i]) return -1;
        }
    }
    return 0;
}

/* Call the kernel, without the GIL. */
static int jc_run(const jc_call *k, int program, uint64_t wanted, jc_results *r) {
    const jc_program *p = &jc_programs[program];
    const jc_slot *slots = jc_slots + p->slots;
    void *arrays[JC_SLOTS + 1];
    uint64_t reads = 0;
    for (int i = 0; i < p->outputs; ++i)
        if (wanted >> i & 1) reads |= slots[p->inputs + i].reads;
    for (int i = 0; i < p->inputs; ++i) {
        PyArrayObject *a = k->a[slots[i].side][slots[i].tensor];
        arrays[i] = a ? PyArray_DATA(a) : NULL;
        if (!a && (reads >> i & 1)) {
            PyObject *label = jc_label(slots[i].side, slots[i].tensor);
            if (label) jc_fail(PyExc_ValueError, k, "%U is None, but it is needed: it was not kept for this wrt.", label);
            Py_XDECREF(label);
            return -1;
        }
    }
    for (int i = 0; i < p->outputs; ++i) arrays[p->inputs + i] = r->made[i] ? PyArray_DATA(r->made[i]) : NULL;
    jc_kernel kernel = p->of[k->s.real];
    if (!kernel) return jc_fail(PyExc_TypeError, k, "this module was built without %s.", jc_numpy_name(k->s.real));
    if (p->blas && jc_blas_enter()) return -1;
    int status;
    Py_BEGIN_ALLOW_THREADS
    status = kernel(arrays, k->s.v, k->s.c, k->s.threads);
    Py_END_ALLOW_THREADS
    if (p->blas) jc_blas_leave();
    if (status) { PyErr_NoMemory(); return -1; }
    for (int i = 0; i < p->outputs; ++i) {
        if (!r->given[i]) continue;
        if (PyArray_CopyInto(r->given[i], r->made[i])) return -1;
        Py_SETREF(r->made[i], r->given[i]);
        r->given[i] = NULL;
    }
    return 0;
}

static PyObject *jc_scalar_or_array(PyArrayObject *a, PyObject *out) {
    if (out && out != Py_None) return Py_NewRef((PyObject *)a);
    return PyArray_Return((PyArrayObject *)Py_NewRef((PyObject *)a));
}

/* The results of the layer itself: one array, or a named tuple; `side` tangents are None for integers. */
static PyObject *jc_layer_results(int program, const jc_results *r, int side, PyObject *out) {
    const jc_program *p = &jc_programs[program];
    const jc_slot *slots = jc_slots + p->slots + p->inputs;
    PyObject *tuple = PyTuple_New(JC_OUTPUTS);
    if (!tuple) return NULL;
    for (int o = 0; o < JC_OUTPUTS; ++o) {
        PyObject *one = NULL;
        for (int i = 0; i < p->outputs; ++i)
            if (slots[i].side == side && slots[i].tensor == JC_INPUTS + o) one = jc_scalar_or_array(r->made[i], out);
        if (!one && PyErr_Occurred()) { Py_DECREF(tuple); return NULL; }
        PyTuple_SET_ITEM(tuple, o, one ? one : Py_NewRef(Py_None));
    }
    PyObject *result;
    if (JC_OUTPUTS == 1) result = Py_NewRef(PyTuple_GET_ITEM(tuple, 0));
    else {
        PyObject *arguments = PyTuple_Pack(1, tuple);
        result = arguments ? PyTuple_Type.tp_new((PyTypeObject *)jc_outputs_type, arguments, NULL) : NULL;
        Py_XDECREF(arguments);
    }
    Py_DECREF(tuple);
    return result;
}

/* The set of inputs that `wrt` names: all real ones by default. */
static int jc_wrt(const jc_call *k, PyObject *wrt, uint64_t *set) {
    *set = 0;
    if (!wrt || wrt == Py_None) {
        for (int t = 0; t < JC_INPUTS; ++t)
            if (!jc_tensors[t].integer) *set |= (uint64_t)1 << t;
        return 0;
    }
    if (!PyUnicode_Check(wrt) && !PyTuple_Check(wrt) && !PyList_Check(wrt))
        return jc_fail(PyExc_TypeError, k, "wrt is %R, but it must be a name, a tuple of names or None.", wrt);
    Py_ssize_t n = PyUnicode_Check(wrt) ? 1 : PySequence_Fast_GET_SIZE(wrt);
    for (Py_ssize_t i = 0; i < n; ++i) {
        PyObject *name = PyUnicode_Check(wrt) ? wrt : PySequence_Fast_GET_ITEM(wrt, i);
        int t = 0;
        while (t < JC_INPUTS && !(PyUnicode_Check(name) && !jc_tensors[t].integer && PyUnicode_Compare(jc_keys[t], name) == 0)) ++t;
        if (t == JC_INPUTS) {
            PyObject *choices = PyUnicode_FromString("");
            for (int j = 0; choices && j < JC_INPUTS; ++j)
                if (!jc_tensors[j].integer)
                    Py_SETREF(choices, PyUnicode_FromFormat("%U%s%s", choices, PyUnicode_GET_LENGTH(choices) ? ", " : "", jc_tensors[j].name));
            if (choices) jc_fail(PyExc_ValueError, k, "wrt names %R, but the real inputs are %U.", name, choices);
            Py_XDECREF(choices);
            return -1;
        }
        *set |= (uint64_t)1 << t;
    }
    return 0;
}

/* Of the backward program: its results for these inputs, and the tensors they are computed from. */
static uint64_t jc_backward_results(uint64_t wrt, uint64_t *tensors) {
    const jc_program *p = &jc_programs[JC_BWD];
    const jc_slot *slots = jc_slots + p->slots;
    uint64_t wanted = 0, reads = 0;
    *tensors = 0;
    for (int i = 0; i < p->outputs; ++i)
        if (wrt >> slots[p->inputs + i].tensor & 1) {
            wanted |= (uint64_t)1 << i;
            reads |= slots[p->inputs + i].reads;
        }
    for (int i = 0; i < p->inputs; ++i)
        if ((reads >> i & 1) && slots[i].side == JC_PRIMAL) *tensors |= (uint64_t)1 << slots[i].tensor;
    return wanted;
}

/* ---------------------------------------------------------------------------------------------------------- what users call */

/* Constants, inputs and sizes of a call of the layer. */
static int jc_enter(jc_call *k, int program, PyObject **inputs, PyObject **values) {
    if (jc_threads(k, values[JC_OPTION_KEY + JC_THREADS]) || jc_constants(k, values, jc_programs[program].scalars, 1)) return -1;
    for (int t = 0; t < JC_INPUTS; ++t) {
        if (!inputs[t]) return jc_fail(PyExc_TypeError, k, "the argument %s is missing.", jc_tensors[t].name);
        if (jc_take(k, JC_PRIMAL, t, inputs[t])) return -1;
    }
    return 0;
}

static int jc_default_real(jc_call *k, int program) {
    if (k->s.real < 0) k->s.real = jc_programs[program].of[1] != NULL;
    return 0;
}

static int jc_ready(jc_call *k, int program) {
    return jc_settle(k) || jc_check_indices(k, &jc_programs[program], ~(uint64_t)0) ? -1 : 0;
}

static uint64_t jc_layer_outputs(int program) {
    const jc_program *p = &jc_programs[program];
    const jc_slot *slots = jc_slots + p->slots + p->inputs;
    uint64_t wanted = 0;
    for (int i = 0; i < p->outputs; ++i)
        if (slots[i].tensor < JC_INPUTS + JC_OUTPUTS) wanted |= (uint64_t)1 << i;
    return wanted;
}

static PyObject *jc_forward(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *names) {
    (void)self;
    PyObject *values[JC_KEYS], *result = NULL;
    jc_call k;
    jc_results r;
    jc_open(&k, jc_call_text);
    memset(&r, 0, sizeof r);
    const uint64_t wanted = jc_layer_outputs(JC_FORWARD);
    PyObject *out;
    if (!jc_parse(&k, 1 << JC_OUT | 1 << JC_THREADS, JC_INPUTS, args, n, names, values) && !jc_enter(&k, JC_FORWARD, values, values)
        && !jc_bind(&k, 1) && !jc_default_real(&k, JC_FORWARD)
        && (out = values[JC_OPTION_KEY + JC_OUT], !jc_prepare(&k, JC_FORWARD, wanted, out, JC_OUTPUTS, &r))
        && !jc_ready(&k, JC_FORWARD) && !jc_run(&k, JC_FORWARD, wanted, &r))
        result = jc_layer_results(JC_FORWARD, &r, JC_PRIMAL, out);
    jc_drop(&r);
    jc_close(&k);
    return result;
}

/* The forward call that keeps residuals: runs it and leaves in k->a every tensor that the backward function reads. */
static PyObject *jc_keep(jc_call *k, PyObject *const *args, Py_ssize_t n, PyObject *names) {
    PyObject *values[JC_KEYS], *result = NULL;
    jc_results r;
    uint64_t tensors, wanted;
    memset(&r, 0, sizeof r);
    if (jc_parse(k, 1 << JC_OUT | 1 << JC_THREADS | 1 << JC_WRT, JC_INPUTS, args, n, names, values) || jc_enter(k, JC_FWD, values, values)
        || jc_wrt(k, values[JC_OPTION_KEY + JC_WRT], &k->s.wrt) || jc_bind(k, 1) || jc_default_real(k, JC_FWD))
        return NULL;
    jc_backward_results(k->s.wrt, &tensors);
    const jc_program *p = &jc_programs[JC_FWD];
    const jc_slot *slots = jc_slots + p->slots + p->inputs;
    wanted = jc_layer_outputs(JC_FWD);
    for (int i = 0; i < p->outputs; ++i) wanted |= (tensors >> slots[i].tensor & 1) << i;
    PyObject *out = values[JC_OPTION_KEY + JC_OUT];
    if (!jc_prepare(k, JC_FWD, wanted, out, JC_OUTPUTS, &r) && !jc_ready(k, JC_FWD) && !jc_run(k, JC_FWD, wanted, &r))
        result = jc_layer_results(JC_FWD, &r, JC_PRIMAL, out);
    for (int i = 0; result && i < p->outputs; ++i)
        if (r.made[i]) k->a[JC_PRIMAL][slots[i].tensor] = (PyArrayObject *)Py_NewRef((PyObject *)r.made[i]);
    for (int t = 0; t < JC_TENSORS; ++t)
        if (!(tensors >> t & 1)) Py_CLEAR(k->a[JC_PRIMAL][t]);
    jc_drop(&r);
    return result;
}

/* Cotangents of the outputs, from what was passed for them: None is zero. */
static int jc_cotangents(jc_call *k, PyObject *dy) {
    PyObject *each[JC_OUTPUTS + 1];
    if (JC_OUTPUTS == 1) each[0] = dy;
    else {
        if (!PyTuple_Check(dy) && !PyList_Check(dy))
            return jc_fail(PyExc_TypeError, k, "dy is a %s, but the layer has %d outputs: pass a tuple, with None for zero.", jc_type_name(dy), JC_OUTPUTS);
        if (PySequence_Fast_GET_SIZE(dy) != JC_OUTPUTS)
            return jc_fail(PyExc_ValueError, k, "dy has %zd entries for %d outputs.", PySequence_Fast_GET_SIZE(dy), JC_OUTPUTS);
        for (int o = 0; o < JC_OUTPUTS; ++o) each[o] = PySequence_Fast_GET_ITEM(dy, o);
    }
    for (int o = 0; o < JC_OUTPUTS; ++o) {
        int t = JC_INPUTS + o;
        if (each[o] == Py_None) continue;
        if (jc_tensors[t].integer) return jc_fail(PyExc_TypeError, k, "ct_%s is given, but %s is integer: pass None.", jc_tensors[t].name, jc_tensors[t].name);
        if (jc_take(k, JC_COTANGENT, t, each[o])) return -1;
    }
    return 0;
}

/* Zeros for the arrays of a program that were left out. */
JC_COLD static int jc_zeros(jc_call *k, int program, int side) {
    const jc_program *p = &jc_programs[program];
    for (int i = 0; i < p->inputs; ++i) {
        const jc_slot *slot = &jc_slots[p->slots + i];
        if (slot->side == side && !k->a[side][slot->tensor] && !(k->a[side][slot->tensor] = jc_new(k, slot->tensor, 1))) return -1;
    }
    return 0;
}

/* The cotangents of the inputs, once k holds constants, residuals and cotangents of the outputs. */
static PyObject *jc_pull(jc_call *k, uint64_t wrt, PyObject *out) {
    uint64_t tensors, wanted = jc_backward_results(wrt, &tensors);
    jc_results r;
    PyObject *result = NULL;
    memset(&r, 0, sizeof r);
    const jc_program *p = &jc_programs[JC_BWD];
    if (!jc_bind(k, 1) && !jc_default_real(k, JC_BWD) && !jc_zeros(k, JC_BWD, JC_COTANGENT)
        && !jc_prepare(k, JC_BWD, wanted, out, JC_INPUTS, &r) && !jc_ready(k, JC_BWD) && !jc_run(k, JC_BWD, wanted, &r)
        && (result = PyTuple_New(JC_INPUTS))) {
        for (int t = 0; t < JC_INPUTS; ++t) PyTuple_SET_ITEM(result, t, Py_NewRef(Py_None));
        for (int i = 0; result && i < p->outputs; ++i) {
            if (!r.made[i]) continue;
            PyObject *one = jc_scalar_or_array(r.made[i], out);
            if (!one) { Py_CLEAR(result); break; }
            PyObject *old = PyTuple_GET_ITEM(result, jc_slots[p->slots + p->inputs + i].tensor);
            PyTuple_SET_ITEM(result, jc_slots[p->slots + p->inputs + i].tensor, one);
            Py_DECREF(old);
        }
    }
    jc_drop(&r);
    return result;
}

static PyObject *jc_fwd(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *names) {
    (void)self;
    jc_call k;
    jc_open(&k, jc_call_text);
    PyObject *y = jc_keep(&k, args, n, names), *kept = NULL, *arguments = NULL, *res = NULL, *state = NULL, *result = NULL;
    if (y && (kept = PyTuple_New(JC_KEPT))) {
        for (int i = 0; i < JC_KEPT; ++i) {
            PyObject *one = (PyObject *)k.a[JC_PRIMAL][jc_kept[i]];
            PyTuple_SET_ITEM(kept, i, Py_NewRef(one ? one : Py_None));
        }
        arguments = PyTuple_Pack(1, kept);
        state = PyBytes_FromStringAndSize((const char *)&k.s, sizeof k.s);
        if (arguments && state) res = PyTuple_Type.tp_new((PyTypeObject *)jc_residuals_type, arguments, NULL);
        if (res && !PyObject_SetAttr(res, jc_state_name, state)) result = PyTuple_Pack(2, y, res);
    }
    Py_XDECREF(y); Py_XDECREF(kept); Py_XDECREF(arguments); Py_XDECREF(res); Py_XDECREF(state);
    jc_close(&k);
    return result;
}

/* What a residual or a pullback remembers becomes what a call knows. */
static void jc_recall(jc_call *k, const jc_state *state) {
    k->s = *state;
    k->voter = -2;
    for (int s = 0; s < JC_SIZES; ++s) k->origin[s] = -2;
}

static int jc_narrow(const jc_call *k, PyObject *wrt, uint64_t kept, uint64_t *set) {
    if (!wrt || wrt == Py_None) { *set = kept; return 0; }
    if (jc_wrt(k, wrt, set)) return -1;
    for (int t = 0; t < JC_INPUTS; ++t)
        if ((*set & ~kept) >> t & 1) return jc_fail(PyExc_ValueError, k, "wrt names '%s', which the forward call left out of its wrt.", jc_tensors[t].name);
    return 0;
}

static PyObject *jc_bwd(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *names) {
    (void)self;
    PyObject *values[JC_KEYS], *result = NULL, *state = NULL;
    jc_call k;
    uint64_t wrt, kept = 0;
    jc_open(&k, jc_call_text);
    if (n < 2 || n > 3) { jc_fail(PyExc_TypeError, &k, "bwd takes res, dy and wrt by position: %zd given.", n); return NULL; }
    if (jc_parse(&k, 1 << JC_OUT | 1 << JC_THREADS | 1 << JC_WRT, 0, args + n, 0, names, values)) return NULL;
    PyObject *res = args[0], *given = n == 3 ? args[2] : values[JC_OPTION_KEY + JC_WRT], *out = values[JC_OPTION_KEY + JC_OUT];
    if (n == 3 && values[JC_OPTION_KEY + JC_WRT]) { jc_fail(PyExc_TypeError, &k, "wrt is given twice."); return NULL; }
    if (!(PyTuple_Check(res) || PyList_Check(res)) || PySequence_Fast_GET_SIZE(res) != JC_KEPT) {
        jc_fail(PyExc_TypeError, &k, "res must be what fwd returns, a tuple of %d arrays, but it is a %s.", JC_KEPT, jc_type_name(res));
        return NULL;
    }
    if (Py_TYPE(res) == (PyTypeObject *)jc_residuals_type) {
        state = PyObject_GetAttr(res, jc_state_name);
        if (!state) PyErr_Clear();
    }
    if (state && PyBytes_Check(state) && PyBytes_GET_SIZE(state) == (Py_ssize_t)sizeof(jc_state)) {
        jc_state before;
        memcpy(&before, PyBytes_AS_STRING(state), sizeof before);
        jc_recall(&k, &before);
        kept = before.wrt;
    } else jc_wrt(&k, NULL, &kept);
    Py_XDECREF(state);
    if (jc_threads(&k, values[JC_OPTION_KEY + JC_THREADS]) || jc_constants(&k, values, jc_programs[JC_BWD].scalars, 0)
        || jc_narrow(&k, given, kept, &wrt)) goto done;
    for (int i = 0; i < JC_KEPT; ++i) {
        PyObject *one = PySequence_Fast_GET_ITEM(res, i);
        if (one != Py_None && jc_take(&k, JC_PRIMAL, jc_kept[i], one)) goto done;
    }
    if (!jc_cotangents(&k, args[1])) result = jc_pull(&k, wrt, out);
done:
    jc_close(&k);
    return result;
}

/* The function v -> vᵀJ that vjp returns; immutable, so that threads may share it. */
typedef struct { PyObject_HEAD vectorcallfunc call; jc_state s; PyArrayObject *kept[JC_KEPT + 1]; } jc_pullback;

static PyObject *jc_pullback_call(PyObject *self, PyObject *const *args, size_t flags, PyObject *names) {
    const jc_pullback *pullback = (const jc_pullback *)self;
    Py_ssize_t n = PyVectorcall_NARGS(flags);
    PyObject *values[JC_KEYS], *result = NULL;
    jc_call k;
    uint64_t wrt;
    jc_open(&k, jc_call_text);
    if (n > 2) { jc_fail(PyExc_TypeError, &k, "a pullback takes dy and wrt by position: %zd given.", n); return NULL; }
    if (jc_parse(&k, 1 << JC_OUT | 1 << JC_THREADS | 1 << JC_WRT, 0, args + n, 0, names, values)) return NULL;
    PyObject *given = n == 2 ? args[1] : values[JC_OPTION_KEY + JC_WRT], *out = values[JC_OPTION_KEY + JC_OUT];
    if (n == 2 && values[JC_OPTION_KEY + JC_WRT]) { jc_fail(PyExc_TypeError, &k, "wrt is given twice."); return NULL; }
    jc_recall(&k, &pullback->s);
    PyObject *threads = values[JC_OPTION_KEY + JC_THREADS];
    if ((threads && threads != Py_None && jc_threads(&k, threads)) || jc_constants(&k, values, 0, 0)
        || jc_narrow(&k, given, pullback->s.wrt, &wrt)) goto done;
    for (int i = 0; i < JC_KEPT; ++i)
        if (pullback->kept[i]) {
            PyArrayObject *a = (PyArrayObject *)Py_NewRef((PyObject *)pullback->kept[i]);
            k.a[JC_PRIMAL][jc_kept[i]] = a;
            k.nd[JC_PRIMAL][jc_kept[i]] = PyArray_NDIM(a);
            k.dims[JC_PRIMAL][jc_kept[i]] = PyArray_DIMS(a);
        }
    if (n == 0) {
        npy_intp dims[JC_DIMS];
        int nd = JC_OUTPUTS == 1 ? jc_shape(&k, JC_INPUTS, dims) : -1;
        if (nd == 0 && !jc_tensors[JC_INPUTS].integer) {
            PyObject *one = PyFloat_FromDouble(1.0);
            int failed = !one || jc_take(&k, JC_COTANGENT, JC_INPUTS, one);
            Py_XDECREF(one);
            if (failed) goto done;
        } else {
            if (!PyErr_Occurred()) jc_fail(PyExc_TypeError, &k, "pullback() means 1 where the only output has rank 0. Pass dy.");
            goto done;
        }
    } else if (jc_cotangents(&k, args[0])) goto done;
    result = jc_pull(&k, wrt, out);
done:
    jc_close(&k);
    return result;
}

static void jc_pullback_free(PyObject *self) {
    jc_pullback *pullback = (jc_pullback *)self;
    PyTypeObject *type = Py_TYPE(self);
    for (int i = 0; i < JC_KEPT; ++i) Py_XDECREF(pullback->kept[i]);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *jc_vjp(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *names) {
    (void)self;
    jc_call k;
    jc_open(&k, jc_call_text);
    PyObject *y = jc_keep(&k, args, n, names), *result = NULL;
    if (y) {
        jc_pullback *pullback = (jc_pullback *)jc_pullback_type->tp_alloc(jc_pullback_type, 0);
        if (pullback) {
            pullback->call = jc_pullback_call;
            pullback->s = k.s;
            for (int i = 0; i < JC_KEPT; ++i) {
                pullback->kept[i] = k.a[JC_PRIMAL][jc_kept[i]];
                k.a[JC_PRIMAL][jc_kept[i]] = NULL;
            }
            result = PyTuple_Pack(2, y, pullback);
            Py_DECREF(pullback);
        }
        Py_DECREF(y);
    }
    jc_close(&k);
    return result;
}

/* One array for each input, in order: a tuple or list; of the only input also the array itself. */
JC_COLD static int jc_each(const jc_call *k, const char *name, PyObject *value, PyObject **each) {
    if (JC_INPUTS == 1 && !PyTuple_Check(value)) { each[0] = value; return 0; }
    if (!PyTuple_Check(value) && !PyList_Check(value))
        return jc_fail(PyExc_TypeError, k, "%s is a %s, but it must be a tuple with an entry for each input.", name, jc_type_name(value));
    if (PySequence_Fast_GET_SIZE(value) != JC_INPUTS)
        return jc_fail(PyExc_ValueError, k, "%s has %zd entries for %d inputs.", name, PySequence_Fast_GET_SIZE(value), JC_INPUTS);
    for (int t = 0; t < JC_INPUTS; ++t) each[t] = PySequence_Fast_GET_ITEM(value, t);
    return 0;
}

static PyObject *jc_jvp(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *names) {
    (void)self;
    PyObject *values[JC_KEYS], *primals[JC_INPUTS + 1], *tangents[JC_INPUTS + 1], *result = NULL, *y = NULL, *ty = NULL;
    jc_call k;
    jc_results r;
    memset(&r, 0, sizeof r);
    jc_open(&k, jc_call_text);
    if (n != 2) { jc_fail(PyExc_TypeError, &k, "jvp takes primals and tangents by position: %zd given.", n); return NULL; }
    uint64_t wanted = 0;
    if (jc_parse(&k, 1 << JC_THREADS, 0, args + n, 0, names, values) || jc_each(&k, "primals", args[0], primals)
        || jc_each(&k, "tangents", args[1], tangents) || jc_enter(&k, JC_JVP, primals, values)) goto done;
    for (int t = 0; t < JC_INPUTS; ++t) {
        if (tangents[t] == Py_None) continue;
        if (jc_tensors[t].integer) {
            jc_fail(PyExc_TypeError, &k, "t_%s is given, but %s is integer: pass None.", jc_tensors[t].name, jc_tensors[t].name);
            goto done;
        }
        if (jc_take(&k, JC_TANGENT, t, tangents[t])) goto done;
    }
    wanted = ((uint64_t)1 << jc_programs[JC_JVP].outputs) - 1;
    if (!jc_bind(&k, 1) && !jc_default_real(&k, JC_JVP) && !jc_zeros(&k, JC_JVP, JC_TANGENT) && !jc_prepare(&k, JC_JVP, wanted, NULL, 0, &r)
        && !jc_ready(&k, JC_JVP) && !jc_run(&k, JC_JVP, wanted, &r) && (y = jc_layer_results(JC_JVP, &r, JC_PRIMAL, NULL))
        && (ty = jc_layer_results(JC_JVP, &r, JC_TANGENT, NULL)))
        result = PyTuple_Pack(2, y, ty);
done:
    Py_XDECREF(y); Py_XDECREF(ty);
    jc_drop(&r);
    jc_close(&k);
    return result;
}

/* Which tensor of first..first+count a name means; the only real one if it is left out. */
JC_COLD static int jc_choose(const jc_call *k, const char *key, PyObject *name, int first, int count) {
    int found = -1, real = 0;
    for (int t = first; t < first + count; ++t) {
        if (jc_tensors[t].integer) continue;
        ++real;
        if (!name || name == Py_None) found = t;
        else if (PyUnicode_Check(name) && PyUnicode_CompareWithASCIIString(name, "") != 0) {
            PyObject *own = PyUnicode_FromString(jc_tensors[t].name);
            if (own && PyUnicode_Compare(own, name) == 0) found = t;
            Py_XDECREF(own);
        }
    }
    if (found >= 0 && (real == 1 || (name && name != Py_None))) return found;
    PyObject *choices = PyUnicode_FromString("");
    for (int t = first; choices && t < first + count; ++t)
        if (!jc_tensors[t].integer)
            Py_SETREF(choices, PyUnicode_FromFormat("%U%s%s", choices, PyUnicode_GET_LENGTH(choices) ? ", " : "", jc_tensors[t].name));
    if (choices) jc_fail(PyExc_ValueError, k, "%s is %R, but it must be one of %U.", key, name ? name : Py_None, choices);
    Py_XDECREF(choices);
    return -1;
}

JC_COLD static Py_ssize_t jc_count(int nd, const npy_intp *dims) {
    Py_ssize_t n = 1;
    for (int d = 0; d < nd; ++d)
        if (__builtin_mul_overflow(n, dims[d], &n)) return dims[d] == 0 ? 0 : PY_SSIZE_T_MAX;
    return n;
}

/* The dense Jacobian, by the backward kernel on unit cotangents or by the tangent kernel on unit tangents, whichever runs less often. */
JC_COLD static PyObject *jc_jacobian(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *names) {
    (void)self;
    PyObject *values[JC_KEYS], *big = NULL;
    PyArrayObject *J = NULL, *unit = NULL;
    npy_intp dims[2 * JC_DIMS];
    jc_call k;
    jc_results r;
    memset(&r, 0, sizeof r);
    jc_open(&k, jc_call_text);
    if (jc_parse(&k, 1 << JC_THREADS | 1 << JC_WRT | 1 << JC_OF | 1 << JC_FORM, JC_INPUTS, args, n, names, values)) goto done;
    PyObject *form = values[JC_OPTION_KEY + JC_FORM];
    if (form && !(PyUnicode_Check(form) && PyUnicode_CompareWithASCIIString(form, "dense") == 0)) {
        jc_fail(PyExc_ValueError, &k, "form is %R, but it must be 'dense'.", form);
        goto done;
    }
    int of = jc_choose(&k, "of", values[JC_OPTION_KEY + JC_OF], JC_INPUTS, JC_OUTPUTS);
    int wrt = of < 0 ? -1 : jc_choose(&k, "wrt", values[JC_OPTION_KEY + JC_WRT], 0, JC_INPUTS);
    int backward = jc_programs[JC_BWD].of[0] || jc_programs[JC_BWD].of[1], tangent = jc_programs[JC_JVP].of[0] || jc_programs[JC_JVP].of[1];
    if (wrt < 0 || jc_enter(&k, backward ? JC_FWD : JC_JVP, values, values) || jc_bind(&k, 1)
        || jc_default_real(&k, backward ? JC_FWD : JC_JVP)) goto done;
    int nd_of = jc_shape(&k, of, dims), nd_wrt = nd_of < 0 ? -1 : jc_shape(&k, wrt, dims + nd_of);
    if (nd_wrt < 0) goto done;
    Py_ssize_t rows = jc_count(nd_of, dims), columns = jc_count(nd_wrt, dims + nd_of), item = k.s.real ? 8 : 4, bytes;
    if (__builtin_mul_overflow(rows, columns, &bytes) || __builtin_mul_overflow(bytes, item, &bytes) || bytes > JC_DENSE_LIMIT) {
        PyObject *shape = jc_tuple(nd_of + nd_wrt, dims);
        if (shape)
            jc_fail(PyExc_ValueError, &k, "the dense Jacobian %R of %s needs more than the limit of %zd bytes (%zd MiB). "
                    "Use vjp or jvp, or smaller sizes.", shape, jc_numpy_name(k.s.real), JC_DENSE_LIMIT, JC_DENSE_LIMIT >> 20);
        Py_XDECREF(shape);
        goto done;
    }
    if (nd_of + nd_wrt > JC_DIMS) { jc_fail(PyExc_ValueError, &k, "the Jacobian would have %d axes.", nd_of + nd_wrt); goto done; }
    if (!(J = (PyArrayObject *)PyArray_ZEROS(nd_of + nd_wrt, dims, jc_dtype(&k, of), 0)) || rows == 0 || columns == 0) { big = (PyObject *)J; goto done; }
    const int program = backward && (rows <= columns || !tangent) ? JC_BWD : JC_JVP, side = program == JC_BWD ? JC_COTANGENT : JC_TANGENT;
    const jc_program *p = &jc_programs[program];
    uint64_t wanted = 0;
    int at = -1;
    if (program == JC_BWD) {                     /* residuals first */
        const jc_program *f = &jc_programs[JC_FWD];
        const uint64_t all = ((uint64_t)1 << f->outputs) - 1;
        if (jc_prepare(&k, JC_FWD, all, NULL, 0, &r) || jc_ready(&k, JC_FWD) || jc_run(&k, JC_FWD, all, &r)) goto done;
        for (int i = 0; i < f->outputs; ++i) {
            k.a[JC_PRIMAL][jc_slots[f->slots + f->inputs + i].tensor] = r.made[i];
            r.made[i] = NULL;
        }
        if (jc_zeros(&k, JC_BWD, JC_COTANGENT)) goto done;
    } else if (jc_zeros(&k, JC_JVP, JC_TANGENT)) goto done;
    for (int i = 0; i < p->outputs; ++i) {
        const jc_slot *slot = &jc_slots[p->slots + p->inputs + i];
        if (slot->side == side && slot->tensor == (program == JC_BWD ? wrt : of)) { wanted = (uint64_t)1 << i; at = i; }
    }
    unit = k.a[side][program == JC_BWD ? of : wrt];
    if (at < 0 || !unit) { big = (PyObject *)J; goto done; }              /* no path from the one to the other: zeros */
    if (jc_ready(&k, program) || !(r.made[at] = jc_new(&k, program == JC_BWD ? wrt : of, 0))) goto done;
    char *ones = PyArray_BYTES(unit), *result = PyArray_BYTES(r.made[at]), *J_bytes = PyArray_BYTES(J);
    const Py_ssize_t runs = program == JC_BWD ? rows : columns;
    for (Py_ssize_t j = 0; j < runs; ++j) {
        if (k.s.real) ((double *)ones)[j] = 1.0; else ((float *)ones)[j] = 1.0f;
        if (jc_run(&k, program, wanted, &r) || PyErr_CheckSignals()) goto done;
        if (k.s.real) ((double *)ones)[j] = 0.0; else ((float *)ones)[j] = 0.0f;
        if (program == JC_BWD) memcpy(J_bytes + j * columns * item, result, columns * item);
        else for (Py_ssize_t i = 0; i < rows; ++i) memcpy(J_bytes + (i * columns + j) * item, result + i * item, item);
    }
    big = (PyObject *)J;
done:
    if (big != (PyObject *)J) Py_XDECREF((PyObject *)J);
    jc_drop(&r);
    jc_close(&k);
    return big && PyArray_NDIM((PyArrayObject *)big) == 0 ? PyArray_Return((PyArrayObject *)big) : big;
}

/* What the results and residuals would be shaped like, from shapes alone. */
JC_COLD static PyObject *jc_shapes(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *names) {
    (void)self;
    PyObject *values[JC_KEYS], *result = NULL;
    npy_intp store[JC_INPUTS + 1][JC_DIMS];
    jc_call k;
    jc_open(&k, jc_call_text);
    if (jc_parse(&k, 0, JC_INPUTS, args, n, names, values) || jc_constants(&k, values, JC_EXTENT_SCALARS, 1)) return NULL;
    for (int t = 0; t < JC_INPUTS; ++t) {
        if (!values[t]) continue;
        PyObject *shape = PyTuple_Check(values[t]) || PyList_Check(values[t]) ? PySequence_Tuple(values[t]) : NULL;
        if (!shape || PyTuple_GET_SIZE(shape) > JC_DIMS) {
            Py_XDECREF(shape);
            jc_fail(PyExc_TypeError, &k, "%s is %R, but shapes takes the shape of each input, a tuple.", jc_tensors[t].name, values[t]);
            return NULL;
        }
        int nd = (int)PyTuple_GET_SIZE(shape);
        for (int d = 0; d < nd; ++d) {
            Py_ssize_t extent;
            if (jc_whole(&k, jc_tensors[t].name, PyTuple_GET_ITEM(shape, d), 0, PY_SSIZE_T_MAX, &extent)) { Py_DECREF(shape); return NULL; }
            store[t][d] = extent;
        }
        Py_DECREF(shape);
        k.nd[JC_PRIMAL][t] = nd;
        k.dims[JC_PRIMAL][t] = store[t];
    }
    if (jc_bind(&k, 1) || !(result = PyDict_New())) return NULL;
    for (int t = JC_INPUTS; t < JC_TENSORS; ++t) {
        npy_intp dims[JC_DIMS];
        int nd = jc_shape(&k, t, dims);
        PyObject *shape = nd < 0 ? NULL : jc_tuple(nd, dims);
        int failed = !shape || PyDict_SetItemString(result, jc_tensors[t].name, shape);
        Py_XDECREF(shape);
        if (failed) { Py_CLEAR(result); break; }
    }
    return result;
}

/* ---------------------------------------------------------------------------------------------------------------- the module */

JC_COLD static PyObject *jc_pullback_repr(PyObject *self) {
    (void)self;
    return PyUnicode_FromFormat("<pullback of %s>", jc_call_text);
}

JC_COLD static int jc_make_pullback_type(void) {
    static PyMemberDef members[] = {{"__vectorcalloffset__", T_PYSSIZET, offsetof(jc_pullback, call), READONLY, NULL}, {NULL, 0, 0, 0, NULL}};
    static PyType_Slot slots[] = {{Py_tp_call, (void *)PyVectorcall_Call}, {Py_tp_dealloc, (void *)jc_pullback_free},
                                  {Py_tp_members, members}, {Py_tp_repr, (void *)jc_pullback_repr}, {0, NULL}};
    static PyType_Spec spec = {"jaccomp.Pullback", sizeof(jc_pullback), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};
    jc_pullback_type = (PyTypeObject *)PyType_FromSpec(&spec);
    return jc_pullback_type ? 0 : -1;
}

/* A named tuple that can be pickled, with an instance dictionary. */
JC_COLD static PyObject *jc_named_tuple(PyObject *globals, const char *name, PyObject *fields) {
    PyObject *collections = PyImport_ImportModule("collections"), *base = NULL, *result = NULL;
    if (collections) base = PyObject_CallMethod(collections, "namedtuple", "sO", name, fields);
    if (base) result = PyObject_CallFunction((PyObject *)&PyType_Type, "s(O){sO}", name, base, "__module__", PyDict_GetItemString(globals, "__name__"));
    if (result && PyDict_SetItemString(globals, name, result)) Py_CLEAR(result);
    Py_XDECREF(collections); Py_XDECREF(base);
    return result;
}

/* Put the layer's functions into the module; `docs` maps the name of each that there is to its docstring. */
JC_COLD static int jc_frame(PyObject *globals, PyObject *docs) {
    static PyMethodDef functions[] = {
        {"forward", (PyCFunction)(void (*)(void))jc_forward, METH_FASTCALL | METH_KEYWORDS, NULL},
        {"fwd", (PyCFunction)(void (*)(void))jc_fwd, METH_FASTCALL | METH_KEYWORDS, NULL},
        {"vjp", (PyCFunction)(void (*)(void))jc_vjp, METH_FASTCALL | METH_KEYWORDS, NULL},
        {"bwd", (PyCFunction)(void (*)(void))jc_bwd, METH_FASTCALL | METH_KEYWORDS, NULL},
        {"jvp", (PyCFunction)(void (*)(void))jc_jvp, METH_FASTCALL | METH_KEYWORDS, NULL},
        {"jacobian", (PyCFunction)(void (*)(void))jc_jacobian, METH_FASTCALL | METH_KEYWORDS, NULL},
        {"shapes", (PyCFunction)(void (*)(void))jc_shapes, METH_FASTCALL | METH_KEYWORDS, NULL},
    };
    if (_import_array() < 0) return -1;
    for (int i = 0; i < JC_KEYS; ++i)
        if (!(jc_keys[i] = PyUnicode_InternFromString(jc_key_names[i]))) return -1;
    if (!(jc_state_name = PyUnicode_InternFromString("_call")) || jc_make_pullback_type()) return -1;
    PyObject *outputs = PyList_New(0), *kept = PyList_New(0);
    int failed = !outputs || !kept;
    for (int i = 0; !failed && i < JC_OUTPUTS + JC_KEPT; ++i) {
        PyObject *name = PyUnicode_FromString(jc_tensors[i < JC_OUTPUTS ? JC_INPUTS + i : jc_kept[i - JC_OUTPUTS]].name);
        failed = !name || PyList_Append(i < JC_OUTPUTS ? outputs : kept, name);
        Py_XDECREF(name);
    }
    failed = failed || !(jc_outputs_type = jc_named_tuple(globals, "Outputs", outputs))
             || !(jc_residuals_type = jc_named_tuple(globals, "Residuals", kept));
    Py_XDECREF(outputs); Py_XDECREF(kept);
    PyObject *module_name = PyDict_GetItemString(globals, "__name__");
    for (size_t i = 0; !failed && i < sizeof functions / sizeof *functions; ++i) {
        PyObject *doc = PyDict_GetItemString(docs, functions[i].ml_name), *function;
        if (!doc) continue;
        Py_INCREF(doc);                          /* for the life of the process: the function's docstring points into it */
        functions[i].ml_doc = PyUnicode_AsUTF8(doc);
        function = functions[i].ml_doc ? PyCFunction_NewEx(&functions[i], NULL, module_name) : NULL;
        failed = !function || PyDict_SetItemString(globals, functions[i].ml_name, function);
        Py_XDECREF(function);
    }
    return failed ? -1 : 0;
}
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC pop_options
#endif
#endif
