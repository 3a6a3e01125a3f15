/* ---------------------------------------------------------------------------------------------------------------- the module */

JC_COLD static PyObject *jc_pullback_repr(PyObject *self) {
    (void)self;
    return PyUnicode_FromFormat("<pullback of %s>", jc_call_text);
}

static const char jc_pullback_doc[] =
    "pullback(dy, wrt=None, *, out=None, threads=None): the cotangents of the inputs, a tuple with an entry for each.\n\n"
    "dy is the cotangent of the output, or a tuple of them, None for zero; it may be left out where the only output has\n"
    "rank 0. wrt is a name or a tuple of names: the others' entries are None and cost nothing. A pullback may be called\n"
    "many times and from many threads; it needs the inputs of the forward call unmodified.";

JC_COLD static int jc_make_pullback_type(void) {
    static PyMemberDef members[] = {{"__vectorcalloffset__", T_PYSSIZET, offsetof(jc_pullback, call), READONLY, NULL}, {NULL, 0, 0, 0, NULL}};
    static PyType_Slot slots[] = {{Py_tp_call, (void *)PyVectorcall_Call}, {Py_tp_dealloc, (void *)jc_pullback_free},
                                  {Py_tp_members, members}, {Py_tp_repr, (void *)jc_pullback_repr}, {Py_tp_doc, (void *)jc_pullback_doc},
                                  {0, NULL}};
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

/* The state that all modules of the process share: the first one's. The interpreter's dictionary says where it is. */
JC_COLD static int jc_share(void) {
    static const char name[] = "jaccomp.process.1";         /* of this layout of jc_shared */
    PyObject *interpreter = PyInterpreterState_GetDict(PyInterpreterState_Get());
    PyObject *known = interpreter ? PyDict_GetItemString(interpreter, name) : NULL;
    if (known) {
        void *shared = PyCapsule_GetPointer(known, name);
        if (!shared) return -1;
        jc_process = shared;
        return 0;
    }
    jc_limit();
    pthread_atfork(jc_before_fork, jc_after_fork, jc_in_child);
    PyObject *own = PyCapsule_New(&jc_own, name, NULL);
    int failed = !own || (interpreter && PyDict_SetItemString(interpreter, name, own));
    Py_XDECREF(own);
    return failed ? -1 : 0;
}

static PyObject *jc_release(PyObject *self, PyObject *nothing) {
    (void)self; (void)nothing;
    return PyLong_FromSize_t(jc_process->release());
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
        {"release_memory", jc_release, METH_NOARGS, NULL},
    };
    if (_import_array() < 0 || jc_share() < 0) return -1;
    if (!(jc_memory_handler = PyCapsule_New(&jc_array_memory, "mem_handler", NULL))) return -1;
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
