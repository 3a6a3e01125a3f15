/* The CPU guard: a module built for instructions that this machine lacks raises ImportError instead of dying of SIGILL.

   Include it after Python.h, as every header that Cython includes is. Nothing has to be called: Cython's PyInit_NAME is one tail
   call to PyModuleDef_Init, which this header routes through a function compiled for the baseline, so that the question is asked
   before any code that -march could have touched. What is asked follows from the macros by which the compiler says what it
   was allowed to use; a baseline build asks nothing. CPU features that compilers never use on their own (AES, SHA, RDSEED, ...)
   are not asked for.

   It also refuses the flags under which NaN and subnormals die, whoever compiles the file. */
#pragma once

#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#error "jaccomp: compile without -ffast-math, -Ofast and -ffinite-math-only: they delete NaN tests and flush subnormals to zero."
#endif

#if (defined(__x86_64__) || defined(__i386__)) && defined(__GNUC__) && (__GNUC__ >= 11 || defined(__clang__))

#if defined(__clang__)
#define JC_BASELINE __attribute__((noinline))
#else
#define JC_BASELINE __attribute__((noinline, target("arch=x86-64")))
#endif

JC_BASELINE static const char *jc_cpu_missing(void) {
    __builtin_cpu_init();
#define JC_NEEDS(feature) if (!__builtin_cpu_supports(feature)) return feature;
#ifdef __SSSE3__
    JC_NEEDS("ssse3")
#endif
#ifdef __SSE4_1__
    JC_NEEDS("sse4.1")
#endif
#ifdef __SSE4_2__
    JC_NEEDS("sse4.2")
#endif
#ifdef __POPCNT__
    JC_NEEDS("popcnt")
#endif
#ifdef __AVX__
    JC_NEEDS("avx")
#endif
#ifdef __AVX2__
    JC_NEEDS("avx2")
#endif
#ifdef __FMA__
    JC_NEEDS("fma")
#endif
#ifdef __FMA4__
    JC_NEEDS("fma4")
#endif
#ifdef __XOP__
    JC_NEEDS("xop")
#endif
#ifdef __BMI__
    JC_NEEDS("bmi")
#endif
#ifdef __BMI2__
    JC_NEEDS("bmi2")
#endif
#ifdef __AVX512F__
    JC_NEEDS("avx512f")
#endif
#ifdef __AVX512CD__
    JC_NEEDS("avx512cd")
#endif
#ifdef __AVX512BW__
    JC_NEEDS("avx512bw")
#endif
#ifdef __AVX512DQ__
    JC_NEEDS("avx512dq")
#endif
#ifdef __AVX512VL__
    JC_NEEDS("avx512vl")
#endif
#ifdef __AVX512IFMA__
    JC_NEEDS("avx512ifma")
#endif
#ifdef __AVX512VBMI__
    JC_NEEDS("avx512vbmi")
#endif
#ifdef __AVX512VBMI2__
    JC_NEEDS("avx512vbmi2")
#endif
#ifdef __AVX512VNNI__
    JC_NEEDS("avx512vnni")
#endif
#ifdef __AVX512BITALG__
    JC_NEEDS("avx512bitalg")
#endif
#ifdef __AVX512VPOPCNTDQ__
    JC_NEEDS("avx512vpopcntdq")
#endif
#ifdef __AVX512BF16__
    JC_NEEDS("avx512bf16")
#endif
#ifdef __GFNI__
    JC_NEEDS("gfni")
#endif
#if !defined(__clang__)
#ifdef __F16C__
    JC_NEEDS("f16c")
#endif
#ifdef __LZCNT__
    JC_NEEDS("lzcnt")
#endif
#ifdef __MOVBE__
    JC_NEEDS("movbe")
#endif
#endif
#undef JC_NEEDS
    return NULL;
}

JC_BASELINE static PyObject *jc_guarded_init(struct PyModuleDef *module) {
    const char *missing = jc_cpu_missing();
    if (missing) {
        PyErr_Format(PyExc_ImportError,
                     "%s was built for a CPU with %s, which this one lacks. Build it again for this machine, or with --march baseline.",
                     module->m_name, missing);
        return NULL;
    }
    return PyModuleDef_Init(module);
}
#define PyModuleDef_Init jc_guarded_init

#endif
