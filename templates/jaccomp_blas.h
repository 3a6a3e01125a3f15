/* Matrix products and loop bounds of generated kernels. Where `jc_product` is there it computes the products; elsewhere SciPy's
   BLAS does, resolved at the first call that needs it.

   Row-major `C[m, n] = alpha op(A)[m, k] op(B)[k, n] (+ C)`, C in an array of so many `elements`. Each call runs on the calling
   thread alone: our own tiles are what runs in parallel, and results of a threaded product depend on the number of threads.
   SciPy's OpenBLAS is built on pthreads and has one thread count for the process, so that count is 1 while a kernel with products
   runs (`jc_blas_enter`, counted over all modules) and is set back after the last of them (`jc_blas_leave`). NumPy carries an
   OpenBLAS of its own, which is not touched. Where the BLAS
   is another one, it runs as it is configured. */
#ifndef JC_BLAS_INCLUDED
#define JC_BLAS_INCLUDED
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <limits.h>

#define JC_INF __builtin_inf()

/* The least j with c*j + e >= 0, and one more than the greatest; see LowerBound and UpperBound of the loop IR. */
static inline ptrdiff_t jc_lower(ptrdiff_t c, ptrdiff_t e) {
    ptrdiff_t far = PTRDIFF_MAX / 4;
    if (c > 0) { ptrdiff_t q = -e / c; return q + (-e % c > 0); }
    return c < 0 || e >= 0 ? -far : far;
}
static inline ptrdiff_t jc_upper(ptrdiff_t c, ptrdiff_t e) {
    ptrdiff_t far = PTRDIFF_MAX / 4;
    if (c < 0) { ptrdiff_t q = e / -c; return q - (e % -c < 0) + 1; }
    return far;
}
/* The same but at least `low`, at most `high`; nothing is divided where that one satisfies the constraint, as most of the time. */
static inline ptrdiff_t jc_from(ptrdiff_t low, ptrdiff_t c, ptrdiff_t e) {
    ptrdiff_t p;
    return c < 0 || (!__builtin_mul_overflow(c, low, &p) && p >= -e) ? low : jc_lower(c, e) > low ? jc_lower(c, e) : low;
}
static inline ptrdiff_t jc_until(ptrdiff_t high, ptrdiff_t c, ptrdiff_t e) {
    ptrdiff_t p;
    return c >= 0 || (!__builtin_mul_overflow(c, high - 1, &p) && p >= -e) ? high : jc_upper(c, e) < high ? jc_upper(c, e) : high;
}
static inline float jc_finite_f32(float x) { return __builtin_fabsf(x) == __builtin_inff() ? 0.0f : x; }
static inline double jc_finite_f64(double x) { return __builtin_fabs(x) == __builtin_inf() ? 0.0 : x; }

/* Integers in the order of the reals, every nan above them all, and back: the maximum of integers is a vector operation, that of
   reals is none, as it must keep a nan. No branch, so that a loop over them becomes one over vectors. */
#define JC_ORDER(T, I, suffix, inf, largest) \
static inline I jc_order_##suffix(T x) { \
    I b, nan; \
    memcpy(&b, &x, sizeof b); \
    nan = (I)((inf - (b & largest)) >> (8 * sizeof(I) - 1)); \
    b ^= (b >> (8 * sizeof(I) - 1)) & largest; \
    return (b & ~nan) | (nan & largest); \
} \
static inline I jc_later_##suffix(I a, I b) { return a > b ? a : b; } \
static inline T jc_ordered_##suffix(I b) { \
    T x; \
    b ^= (b >> (8 * sizeof(I) - 1)) & largest; \
    memcpy(&x, &b, sizeof x); \
    return x; \
}
JC_ORDER(float, int32_t, f32, INT32_C(0x7f800000), INT32_MAX)
JC_ORDER(double, int64_t, f64, INT64_C(0x7ff0000000000000), INT64_MAX)

typedef void (*jc_sgemm_t)(char *, char *, int *, int *, int *, float *, float *, int *, float *, int *, float *, float *, int *);
typedef void (*jc_dgemm_t)(char *, char *, int *, int *, int *, double *, double *, int *, double *, int *, double *, double *, int *);
static jc_sgemm_t jc_sgemm;
static jc_dgemm_t jc_dgemm;
static void (*jc_blas_set)(int);
static int (*jc_blas_get)(void);

#if defined(JC_PRODUCT)
/* Where few rows are the one block of a nest, its threads share their columns: an element's bits do not depend on where those are cut. */
#define JC_SHARED_PANELS 8
#define JC_GEMM(T, suffix, gemm) \
typedef struct { int ta, tb, adds; ptrdiff_t m, k, lda, ldb, ldc, elements; T alpha; const T *a, *b; T *c; } jc_factors_##suffix; \
static int jc_columns_##suffix(void *context, ptrdiff_t block, ptrdiff_t first, ptrdiff_t last) { \
    const jc_factors_##suffix *of = context; \
    (void)block; \
    jc_product_##suffix(of->ta, of->tb, of->m, last - first, of->k, of->alpha, of->a, of->lda, of->b + (of->tb ? first * of->ldb : first), \
                        of->ldb, of->adds, of->c + first, of->ldc, of->elements); \
    return 0; \
} \
static inline void jc_gemm_##suffix(int ta, int tb, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, T alpha, const T *a, ptrdiff_t lda, \
        const T *b, ptrdiff_t ldb, int adds, T *c, ptrdiff_t ldc, ptrdiff_t elements) { \
    if (m <= 0 || n <= 0) return; \
    if (k > 0 && jc_spare > 1) { \
        jc_factors_##suffix of = {ta, tb, adds, m, k, lda, ldb, ldc, elements, alpha, a, b, c}; \
        jc_process->run(jc_columns_##suffix, &of, n, JC_SHARED_PANELS * jc_panel_##suffix, jc_spare, m * n * k); \
    } else if (k > 0) jc_product_##suffix(ta, tb, m, n, k, alpha, a, lda, b, ldb, adds, c, ldc, elements); \
    else if (!adds) for (ptrdiff_t i = 0; i < m; ++i) memset(c + i * ldc, 0, (size_t)n * sizeof(T)); \
}
#else
#define JC_GEMM(T, suffix, gemm) \
static inline void jc_gemm_##suffix(int ta, int tb, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, T alpha, const T *a, ptrdiff_t lda, \
        const T *b, ptrdiff_t ldb, int adds, T *c, ptrdiff_t ldc, ptrdiff_t elements) { \
    (void)elements; \
    if (m <= 0 || n <= 0) return; \
    if (k <= 0) { \
        if (!adds) for (ptrdiff_t i = 0; i < m; ++i) memset(c + i * ldc, 0, (size_t)n * sizeof(T)); \
        return; \
    } \
    /* Row-major C = A B is column-major C' = B' A'. Extents beyond int are cut: each piece adds to its own part of C. */ \
    const ptrdiff_t most = INT_MAX / 2; \
    if (lda > INT_MAX || ldb > INT_MAX || ldc > INT_MAX) { \
        for (ptrdiff_t i = 0; i < m; ++i) for (ptrdiff_t j = 0; j < n; ++j) { \
            T sum = 0; \
            for (ptrdiff_t p = 0; p < k; ++p) sum += (ta ? a[p * lda + i] : a[i * lda + p]) * (tb ? b[j * ldb + p] : b[p * ldb + j]); \
            c[i * ldc + j] = alpha * sum + (adds ? c[i * ldc + j] : 0); \
        } \
        return; \
    } \
    for (ptrdiff_t i = 0; i < m; i += most) for (ptrdiff_t j = 0; j < n; j += most) for (ptrdiff_t p = 0; p < k; p += most) { \
        int mm = (int)(m - i < most ? m - i : most), nn = (int)(n - j < most ? n - j : most), kk = (int)(k - p < most ? k - p : most); \
        int la = (int)lda, lb = (int)ldb, lc = (int)ldc; \
        int la_least = ta ? mm : kk, lb_least = tb ? kk : nn; \
        if (la < la_least) la = la_least; \
        if (lb < lb_least) lb = lb_least; \
        if (lc < nn) lc = nn; \
        T beta = adds || p > 0 ? 1 : 0; \
        gemm(tb ? "T" : "N", ta ? "T" : "N", &nn, &mm, &kk, &alpha, (T *)(tb ? b + j * ldb + p : b + p * ldb + j), &lb, \
             (T *)(ta ? a + p * lda + i : a + i * lda + p), &la, &beta, c + i * ldc + j, &lc); \
    } \
}
#endif
JC_GEMM(float, f32, jc_sgemm)
JC_GEMM(double, f64, jc_dgemm)
#endif
