/* Loops over whole vectors: what a kernel's arithmetic loops read, add up and write a vector at a time.

   A sum in one vector waits for each addition before the next begins; several vectors, added up in a fixed order at the end, do
   not. A result that outgrows the cache is stored past it, which takes aligned addresses: such a loop begins with the part of a
   vector that comes before the first of them. */
#ifndef JC_LANES_INCLUDED
#define JC_LANES_INCLUDED
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define JC_LANE_BYTES 64
#elif defined(__AVX__)
#define JC_LANE_BYTES 32
#else
#define JC_LANE_BYTES 16
#endif
#define JC_LANES_f32 (JC_LANE_BYTES / 4)
#define JC_LANES_f64 (JC_LANE_BYTES / 8)
typedef float jc_lanes_f32 __attribute__((vector_size(JC_LANE_BYTES)));
typedef double jc_lanes_f64 __attribute__((vector_size(JC_LANE_BYTES)));
typedef int32_t jc_marks_f32 __attribute__((vector_size(JC_LANE_BYTES)));
typedef int64_t jc_marks_f64 __attribute__((vector_size(JC_LANE_BYTES)));

/* The first n lanes, the others 0: by gcc's masked builtin where there is one. Masked stores beside stores past the cache cost 100 ns each
   on Zen 4, so parts are stored number by number. */
#if defined(__AVX512F__) && defined(__GNUC__) && !defined(__clang__)
static inline jc_lanes_f32 jc_load_part_f32(const float *p, ptrdiff_t n) {
    return __builtin_ia32_loadups512_mask(p, (jc_lanes_f32){0}, (uint16_t)((1u << n) - 1));
}
static inline jc_lanes_f64 jc_load_part_f64(const double *p, ptrdiff_t n) {
    return __builtin_ia32_loadupd512_mask(p, (jc_lanes_f64){0}, (uint8_t)((1u << n) - 1));
}
#else
#define JC_PART(T, suffix) \
static inline jc_lanes_##suffix jc_load_part_##suffix(const T *p, ptrdiff_t n) { \
    jc_lanes_##suffix v = {0}; \
    for (ptrdiff_t i = 0; i < n; ++i) v[i] = p[i]; \
    return v; \
}
JC_PART(float, f32)
JC_PART(double, f64)
#undef JC_PART
#endif

#if defined(JC_STREAM_BYTES)
#define JC_PASS(suffix, builtin, place, v) builtin(place, v)
#define JC_STREAMS JC_COPY_STREAMED
#else
#define JC_PASS(suffix, builtin, place, v) memcpy(place, &v, sizeof v)
#define JC_STREAMS PTRDIFF_MAX
#endif

/* The sum of all lanes, half to half: by shuffles where the compiler has them for any width. */
#if defined(__GNUC__) && !defined(__clang__)
#define JC_HALVES(T, U, suffix) \
static inline T jc_halves_##suffix(jc_lanes_##suffix v) { \
    jc_marks_##suffix lane; \
    for (int i = 0; i < (int)JC_LANES_##suffix; ++i) lane[i] = i; \
    for (U half = (U)JC_LANES_##suffix / 2; half; half /= 2) v += __builtin_shuffle(v, lane ^ half); \
    return v[0]; \
}
#else
#define JC_HALVES(T, U, suffix) \
static inline T jc_halves_##suffix(jc_lanes_##suffix v) { \
    for (int half = (int)JC_LANES_##suffix / 2; half; half /= 2) \
        for (int i = 0; i < half; ++i) v[i] += v[i + half]; \
    return v[0]; \
}
#endif
JC_HALVES(float, int32_t, f32)
JC_HALVES(double, int64_t, f64)
#undef JC_HALVES

/* jc_streams: is an array of `whole` stored past the cache, from `place` on? jc_before: how many values come before the first aligned
   place, if the array of `whole` outgrows the cache. jc_first: the first n lanes, 0 in the others. jc_total: all lanes of n vectors. */
#define JC_LANES(T, U, suffix, builtin) \
static inline jc_lanes_##suffix jc_load_##suffix(const T *p) { jc_lanes_##suffix v; memcpy(&v, p, sizeof v); return v; } \
static inline void jc_store_##suffix(T *p, jc_lanes_##suffix v) { memcpy(p, &v, sizeof v); } \
static inline void jc_store_part_##suffix(T *p, jc_lanes_##suffix v, ptrdiff_t n) { \
    T part[JC_LANES_##suffix]; \
    memcpy(part, &v, sizeof v); \
    for (ptrdiff_t i = 0; i < n; ++i) p[i] = part[i]; \
} \
static inline void jc_pass_##suffix(T *p, jc_lanes_##suffix v, int streams) { \
    if (streams) JC_PASS(suffix, builtin, p, v); \
    else jc_store_##suffix(p, v); \
} \
static inline int jc_streams_##suffix(const T *place, ptrdiff_t whole) { \
    return whole >= (ptrdiff_t)(JC_STREAMS / sizeof(T)) && !((uintptr_t)place & (JC_LANE_BYTES - 1)); \
} \
static inline ptrdiff_t jc_before_##suffix(const T *place, ptrdiff_t count, ptrdiff_t whole) { \
    ptrdiff_t n = (ptrdiff_t)(((0 - (uintptr_t)place) & (JC_LANE_BYTES - 1)) / sizeof(T)); \
    if (whole < (ptrdiff_t)(JC_STREAMS / sizeof(T))) return 0; \
    if (n) __builtin_prefetch(place + count, 1); \
    return n < count ? n : count; \
} \
static inline jc_lanes_##suffix jc_zeros_##suffix(void) { return (jc_lanes_##suffix){0}; } \
static inline jc_lanes_##suffix jc_first_##suffix(jc_lanes_##suffix v, ptrdiff_t n) { \
    jc_marks_##suffix lane, kept; \
    for (int i = 0; i < (int)JC_LANES_##suffix; ++i) lane[i] = i; \
    kept = lane < (jc_marks_##suffix){0} + (U)n; \
    return (jc_lanes_##suffix)((jc_marks_##suffix)v & kept); \
} \
static inline T jc_total_##suffix(const jc_lanes_##suffix *sums, int n) { \
    jc_lanes_##suffix v = sums[0]; \
    for (int i = 1; i < n; ++i) v += sums[i]; \
    return jc_halves_##suffix(v); \
}
JC_LANES(float, int32_t, f32, JC_STREAM_F32)
JC_LANES(double, int64_t, f64, JC_STREAM_F64)
#undef JC_LANES
#endif
