/* What the machine can do at most, measured: bytes moved from and to memory or cache, and vector functions called.

   Each returns the median of the seconds that `repeats` runs took. Compiled with the flags of kernels. */

#define _GNU_SOURCE
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(_OPENMP)
#include <omp.h>
#endif
#include "jaccomp.h"
#include "jaccomp_lanes.h"

#define EXPORT __attribute__((visibility("default")))
#define HUGE_PAGE ((size_t)1 << 21)

typedef float lane __attribute__((vector_size(64), may_alias));

static volatile float sink;

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int count) {
    qsort(values, (size_t)count, sizeof *values, ascending);
    return values[count / 2];
}

/* Memory in huge pages where the system grants them, touched by the threads that will use it. */
EXPORT void *jc_limits_array(size_t bytes, int threads) {
    size_t rounded = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    char *made = aligned_alloc(HUGE_PAGE, rounded ? rounded : HUGE_PAGE);
    if (!made)
        return NULL;
#if defined(MADV_HUGEPAGE)
    madvise(made, rounded ? rounded : HUGE_PAGE, MADV_HUGEPAGE);
#endif
#pragma omp parallel for num_threads(threads) schedule(static)
    for (ptrdiff_t k = 0; k < (ptrdiff_t)(rounded / 4096); k++)
        *(float *)(made + 4096 * k) = 0.0f;
    return made;
}

EXPORT void jc_limits_free(void *array) { free(array); }

static inline __attribute__((always_inline)) lane read_through(const char *from, const char *end, lane sum) {
    lane a = sum, b = {0}, c = {0}, d = {0};
    for (; from + 256 <= end; from += 256) {
        a += *(const lane *)from;
        b += *(const lane *)(from + 64);
        c += *(const lane *)(from + 128);
        d += *(const lane *)(from + 192);
    }
    for (; from < end; from += 64)
        a += *(const lane *)from;
    return (a + b) + (c + d);
}

static inline void store_past_the_cache(char *to, lane value) {
#if defined(__AVX512F__)
    _mm512_stream_ps((float *)to, (__m512)value);
#elif defined(__AVX__)
    union { lane whole; __m256 half[2]; } both = {value};
    _mm256_stream_ps((float *)to, both.half[0]);
    _mm256_stream_ps((float *)to + 8, both.half[1]);
#else
    *(lane *)to = value;
#endif
}

static inline __attribute__((always_inline)) void write_through(char *to, const char *end, lane value, int streaming) {
    if (streaming)
        for (; to < end; to += 64)
            store_past_the_cache(to, value);
    else
        for (; to < end; to += 64)
            *(lane *)to = value;
}

/* One thread's share: in turn a piece of what is read and the piece of what is written that belongs to it. */
static void move(const char *from, size_t read, char *to, size_t written, size_t piece, int streaming) {
    lane sum = {0};
    const size_t most = read > written ? read : written, pieces = most ? (most + piece - 1) / piece : 0;
    for (size_t k = 0; k < pieces; k++) {
        const size_t r0 = read / 64 * k / pieces * 64, r1 = read / 64 * (k + 1) / pieces * 64;
        const size_t w0 = written / 64 * k / pieces * 64, w1 = written / 64 * (k + 1) / pieces * 64;
        sum = read_through(from + r0, from + r1, sum);
        write_through(to + w0, to + w1, sum, streaming);
    }
    sink = sum[0];
#if defined(__x86_64__)
    if (streaming)
        _mm_sfence();
#endif
}

/* Reads `read` and writes `written` bytes; each thread its share of both. */
EXPORT double jc_limits_move(const char *from, size_t read, char *to, size_t written, size_t piece, int streaming,
                             int threads, int repeats) {
    double *taken = malloc(sizeof(double) * (size_t)repeats), result;
    for (int turn = -1; turn < repeats; turn++) {
        const double start = seconds();
#pragma omp parallel for num_threads(threads) schedule(static)
        for (int t = 0; t < threads; t++) {
            const size_t r0 = read / 64 * (size_t)t / (size_t)threads * 64;
            const size_t r1 = read / 64 * (size_t)(t + 1) / (size_t)threads * 64;
            const size_t w0 = written / 64 * (size_t)t / (size_t)threads * 64;
            const size_t w1 = written / 64 * (size_t)(t + 1) / (size_t)threads * 64;
            move(from + r0, r1 - r0, to + w0, w1 - w0, piece, streaming);
        }
        if (turn >= 0)
            taken[turn] = seconds() - start;
    }
    result = median(taken, repeats);
    free(taken);
    return result;
}

/* Vector functions over an array that stays in the first cache: ours, and the C library's where it has them. */

#define VALUES 2048

#define OURS(name, function)                                                   \
    static __attribute__((noinline)) void ours_##name(const float *restrict x, float *restrict y) { \
        for (int k = 0; k < VALUES; k++)                                       \
            y[k] = function(x[k]);                                             \
    }
static __attribute__((noinline)) void ours_exp(const float *restrict x, float *restrict y) {
    for (int k = 0; k < VALUES; k += JC_LANES_f32)
        jc_store_f32(y + k, jc_each_exp_f32(jc_load_f32(x + k)));
}
OURS(tanh, jc_tanh_f32)
OURS(erf, jc_erf_f32)
OURS(log, jc_log_f32)

#if defined(JC_LIBMVEC) && defined(__AVX512F__)
#define LIBRARYS(name)                                                         \
    extern __m512 _ZGVeN16v_##name##f(__m512);                                 \
    static __attribute__((noinline)) void librarys_##name(const float *restrict x, float *restrict y) { \
        for (int k = 0; k < VALUES; k += 16)                                   \
            _mm512_storeu_ps(y + k, _ZGVeN16v_##name##f(_mm512_loadu_ps(x + k))); \
    }
#elif defined(JC_LIBMVEC) && defined(__AVX2__)
#define LIBRARYS(name)                                                         \
    extern __m256 _ZGVdN8v_##name##f(__m256);                                  \
    static __attribute__((noinline)) void librarys_##name(const float *restrict x, float *restrict y) { \
        for (int k = 0; k < VALUES; k += 8)                                    \
            _mm256_storeu_ps(y + k, _ZGVdN8v_##name##f(_mm256_loadu_ps(x + k))); \
    }
#else
#define LIBRARYS(name) static void librarys_##name(const float *x, float *y) { ours_##name(x, y); }
#endif
LIBRARYS(exp)
LIBRARYS(tanh)
LIBRARYS(erf)
LIBRARYS(log)

typedef void (*over_values)(const float *, float *);

static const over_values FUNCTIONS[2][4] = {
    {ours_exp, ours_tanh, ours_erf, ours_log},
    {librarys_exp, librarys_tanh, librarys_erf, librarys_log},
};

/* Seconds of one call on one element, all threads calling: exp, tanh, erf, log; ours or the C library's. */
EXPORT double jc_limits_call(int which, int librarys, int threads, int repeats) {
    double *taken = malloc(sizeof(double) * (size_t)repeats), result;
    const int passes = 64;
    for (int turn = -1; turn < repeats; turn++) {
        const double start = seconds();
#pragma omp parallel for num_threads(threads) schedule(static)
        for (int t = 0; t < threads; t++) {
            float x[VALUES], y[VALUES];
            for (int k = 0; k < VALUES; k++)
                x[k] = 0.01f + 2.0f * (float)k / VALUES;
            for (int pass = 0; pass < passes; pass++) {
                FUNCTIONS[librarys][which](x, y);
                __asm__ volatile("" : : "r"(x), "r"(y) : "memory");
            }
            sink = y[VALUES / 2];
        }
        if (turn >= 0)
            taken[turn] = (seconds() - start) / ((double)VALUES * passes * threads);
    }
    result = median(taken, repeats);
    free(taken);
    return result;
}
