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
