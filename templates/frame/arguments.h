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

/* How many threads a call may use. By default as many as OpenMP would (OMP_NUM_THREADS, threadpoolctl), but no more than this
   process's share of the CPUs, and of those no more than other calls leave; within a parallel region of OpenMP, one. */
static int jc_team(const jc_call *k) {
    if (k->s.threads) return k->s.threads;
    int most = 1;
#ifdef _OPENMP
    most = omp_in_parallel() ? 1 : omp_get_max_threads();
#endif
    if (most <= 1) return 1;
    const int cpus = jc_cpus() / (jc_process->running + 1);
    return most < cpus ? most : cpus > 1 ? cpus : 1;
}

/* The threads that a call asks for; 0: none in particular. */
static int jc_threads(jc_call *k, PyObject *value) {
    k->s.threads = 0;
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
