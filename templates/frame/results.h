/* --------------------------------------------------------------------------------------------------------------------- BLAS */

#if defined(JC_BLAS) && !defined(JC_PRODUCT)
#include <dlfcn.h>
/* SciPy's gemm (see jaccomp_blas.h), found at the first call that needs it: its import takes longer than all else that a module
   does. Counted under the GIL and for all modules, so that concurrent calls set the process-wide thread count once and restore it
   once; a child that was forked amid them finds what to restore. */

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
    if (jc_process->blas_calls++ == 0 && jc_blas_set && jc_blas_get) {
        const int now = jc_blas_get();
        if (!jc_process->blas_before) jc_process->blas_before = now;
        if (now != 1) jc_blas_set(1);
    }
    return 0;
}

static void jc_blas_leave(void) {
    if (--jc_process->blas_calls || !jc_blas_set || !jc_blas_get) return;
    if (jc_process->blas_before > 1) jc_blas_set(jc_process->blas_before);
    jc_process->blas_before = 0;
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

/* NumPy's interface to an allocator: an array remembers the one that it was made with, and gives its block back to it. */
static void *jc_array_malloc(void *context, size_t bytes) { (void)context; return jc_alloc(bytes); }
static void *jc_array_calloc(void *context, size_t n, size_t size) {
    (void)context;
    size_t bytes;
    void *data = __builtin_mul_overflow(n, size, &bytes) ? NULL : jc_alloc(bytes);
    return data ? memset(data, 0, bytes) : NULL;
}
static void *jc_array_realloc(void *context, void *data, size_t bytes) {
    (void)context;
    void *other = jc_alloc(bytes);
    if (!other || !data) return other;
    const size_t before = jc_block_of(data)->bytes;
    memcpy(other, data, before < bytes ? before : bytes);
    jc_free(data);
    return other;
}
static void jc_array_free(void *context, void *data, size_t bytes) { (void)context; (void)bytes; jc_free(data); }
static PyDataMem_Handler jc_array_memory = {"jaccomp", 1, {NULL, jc_array_malloc, jc_array_calloc, jc_array_realloc, jc_array_free}};
static PyObject *jc_memory_handler;

/* An array of uninitialised memory; a large one of the process's blocks, unless the caller has set an allocator of his own. */
static PyArrayObject *jc_empty(int nd, const npy_intp *dims, int type, size_t item) {
    size_t bytes = item;
    for (int d = 0; d < nd; ++d)
        if (__builtin_mul_overflow(bytes, (size_t)dims[d], &bytes)) bytes = SIZE_MAX;
    if (bytes < JC_LARGE) return (PyArrayObject *)PyArray_EMPTY(nd, (npy_intp *)dims, type, 0);
    PyObject *before = PyDataMem_SetHandler(jc_memory_handler), *own;
    if (!before) return NULL;
    if (before != PyDataMem_DefaultHandler) {
        own = PyDataMem_SetHandler(before);
        Py_DECREF(before);
        if (!own) return NULL;
        Py_DECREF(own);
        return (PyArrayObject *)PyArray_EMPTY(nd, (npy_intp *)dims, type, 0);
    }
    PyArrayObject *a = (PyArrayObject *)PyArray_EMPTY(nd, (npy_intp *)dims, type, 0);
    PyObject *error_type, *error, *trace;
    PyErr_Fetch(&error_type, &error, &trace);
    own = PyDataMem_SetHandler(before);
    Py_DECREF(before);
    if (own) PyErr_Restore(error_type, error, trace);
    else {
        Py_XDECREF(error_type); Py_XDECREF(error); Py_XDECREF(trace);
        Py_CLEAR(a);
    }
    Py_XDECREF(own);
    return a;
}

static PyArrayObject *jc_new(const jc_call *k, int t, int zero) {
    npy_intp dims[JC_DIMS];
    int nd = jc_shape(k, t, dims), type = jc_dtype(k, t);
    if (nd < 0) return NULL;
    return zero ? (PyArrayObject *)PyArray_ZEROS(nd, dims, type, 0) : jc_empty(nd, dims, type, type == NPY_FLOAT32 ? 4 : 8);
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
    const int threads = jc_team(k);
    int status;
    ++jc_process->running;
    Py_BEGIN_ALLOW_THREADS
    status = kernel(arrays, k->s.v, k->s.c, threads);
    Py_END_ALLOW_THREADS
    --jc_process->running;
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
