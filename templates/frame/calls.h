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
