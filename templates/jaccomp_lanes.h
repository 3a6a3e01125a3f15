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
#define JC_LANES_AVX512 1
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

/* A loop that reads the last of a row asks for the next row, `stride` values on, where the array outgrows the cache: the hardware follows
   no stream past the end of a page, and is late. 1: into the first cache, 2: a long row into the second. Short
   rows are asked for only where much is computed of each: a row that is read twice and no more took a tenth longer. */
#define JC_AHEAD_BYTES 2048
#define JC_AHEAD_LONG 8192
#define JC_AHEAD(T, suffix) \
static inline int jc_looks_ahead_##suffix(ptrdiff_t stride, ptrdiff_t whole, int much) { \
    if (stride < (ptrdiff_t)(JC_AHEAD_BYTES / sizeof(T)) || whole < (ptrdiff_t)(JC_COPY_STREAMED / sizeof(T))) return 0; \
    return stride >= (ptrdiff_t)(JC_AHEAD_LONG / sizeof(T)) ? 2 : much; \
} \
static inline void jc_ahead_##suffix(const T *next, int looks) { \
    if (looks == 1) __builtin_prefetch(next); \
    else if (looks) __builtin_prefetch(next, 0, 2); \
}
JC_AHEAD(float, f32)
JC_AHEAD(double, f64)
#undef JC_AHEAD

/* So many elements of an array as count for storing a run past the cache, if a place of it is touched again when it is done: that waits for
   memory, which a long run does not mind. */
#define JC_MENDED_LONG 16384
static inline ptrdiff_t jc_if_long_f32(ptrdiff_t n, ptrdiff_t whole) { return n >= (ptrdiff_t)(JC_MENDED_LONG / sizeof(float)) ? whole : 0; }
static inline ptrdiff_t jc_if_long_f64(ptrdiff_t n, ptrdiff_t whole) { return n >= (ptrdiff_t)(JC_MENDED_LONG / sizeof(double)) ? whole : 0; }

/* jc_each_f: a function of numbers, of each lane. The compiler makes the loop one vector operation after the other. */
#define JC_EACH(T, suffix, name) \
static inline jc_lanes_##suffix jc_each_##name##_##suffix(jc_lanes_##suffix v) { \
    T x[JC_LANES_##suffix]; \
    memcpy(x, &v, sizeof v); \
    for (int i = 0; i < (int)JC_LANES_##suffix; ++i) x[i] = jc_##name##_##suffix(x[i]); \
    memcpy(&v, x, sizeof v); \
    return v; \
}
#define JC_EACH_OF_TWO(T, suffix, name) \
static inline jc_lanes_##suffix jc_each_##name##_##suffix(jc_lanes_##suffix v, jc_lanes_##suffix w) { \
    T x[JC_LANES_##suffix], y[JC_LANES_##suffix]; \
    memcpy(x, &v, sizeof v); \
    memcpy(y, &w, sizeof w); \
    for (int i = 0; i < (int)JC_LANES_##suffix; ++i) x[i] = jc_##name##_##suffix(x[i], y[i]); \
    memcpy(&v, x, sizeof v); \
    return v; \
}

/* exp where a vector can be scaled by powers of two in one instruction, overflow and subnormal results included: two thirds of the
   instructions, and one rounding less, 0.89 ulp. The maximum keeps its second argument where one is a NaN; exp(-105) is 0. */
#if defined(JC_LANES_AVX512)
static inline jc_lanes_f32 jc_each_exp_f32(jc_lanes_f32 v) {
    float x[JC_LANES_f32], y[JC_LANES_f32], k[JC_LANES_f32];
    jc_lanes_f32 power, rest;
    v = __builtin_ia32_maxps512_mask((jc_lanes_f32){0} - 105.0f, v, v, (uint16_t)-1, 4);
    memcpy(x, &v, sizeof v);
    for (int i = 0; i < (int)JC_LANES_f32; ++i) {
        uint32_t n;
        float r = jc_exp_rest_f32(x[i], x[i], &n);
        y[i] = jc_madd_f32(jc_madd_f32(jc_exp_tail_f32(r), r, 1.0f), r, 1.0f);
        k[i] = jc_float_f32(n) - 0x1.8p23f;
    }
    memcpy(&rest, y, sizeof y);
    memcpy(&power, k, sizeof k);
    return __builtin_ia32_scalefps512_mask(rest, power, rest, (uint16_t)-1, 4);
}
#else
JC_EACH(float, f32, exp)
#endif
JC_EACH(double, f64, exp)
#if defined(JC_LANES_AVX512)
#define JC_EXTREME(name, suffix, one, mask) \
static inline jc_lanes_##suffix jc_each_##name##_##suffix(jc_lanes_##suffix v, jc_lanes_##suffix w) { \
    return __builtin_ia32_##name##one##512_mask(v, w, v, __builtin_ia32_cmp##one##512_mask(v, v, 7, (mask)-1, 4), 4); \
}
JC_EXTREME(max, f32, ps, uint16_t)
JC_EXTREME(min, f32, ps, uint16_t)
JC_EXTREME(max, f64, pd, uint8_t)
JC_EXTREME(min, f64, pd, uint8_t)
#undef JC_EXTREME
#else
JC_EACH_OF_TWO(float, f32, max)
JC_EACH_OF_TWO(float, f32, min)
JC_EACH_OF_TWO(double, f64, max)
JC_EACH_OF_TWO(double, f64, min)
#endif
#undef JC_EACH
#undef JC_EACH_OF_TWO

/* jc_spread: one number in all lanes. jc_first_or: the first n lanes, a number in the others. jc_most_max, jc_most_min: of all lanes of n vectors. */
#if defined(__GNUC__) && !defined(__clang__)
#define JC_MOST(T, U, suffix, name) \
static inline T jc_most_##name##_##suffix(const jc_lanes_##suffix *found, int n) { \
    jc_lanes_##suffix v = found[0]; \
    jc_marks_##suffix lane; \
    for (int i = 1; i < n; ++i) v = jc_each_##name##_##suffix(found[i], v); \
    for (int i = 0; i < (int)JC_LANES_##suffix; ++i) lane[i] = i; \
    for (U half = (U)JC_LANES_##suffix / 2; half; half /= 2) v = jc_each_##name##_##suffix(v, __builtin_shuffle(v, lane ^ half)); \
    return v[0]; \
}
#else
#define JC_MOST(T, U, suffix, name) \
static inline T jc_most_##name##_##suffix(const jc_lanes_##suffix *found, int n) { \
    jc_lanes_##suffix v = found[0]; \
    for (int i = 1; i < n; ++i) v = jc_each_##name##_##suffix(found[i], v); \
    T most = v[0]; \
    for (int i = 1; i < (int)JC_LANES_##suffix; ++i) most = jc_##name##_##suffix(v[i], most); \
    return most; \
}
#endif
#define JC_FIRST_OR(T, suffix) \
static inline jc_lanes_##suffix jc_spread_##suffix(T value) { return (jc_lanes_##suffix){0} + value; } \
static inline jc_lanes_##suffix jc_first_or_##suffix(jc_lanes_##suffix v, ptrdiff_t n, T value) { \
    T x[JC_LANES_##suffix]; \
    memcpy(x, &v, sizeof v); \
    for (int i = 0; i < (int)JC_LANES_##suffix; ++i) x[i] = i < n ? x[i] : value; \
    memcpy(&v, x, sizeof v); \
    return v; \
}
JC_FIRST_OR(float, f32)
JC_FIRST_OR(double, f64)
JC_MOST(float, int32_t, f32, max)
JC_MOST(float, int32_t, f32, min)
JC_MOST(double, int64_t, f64, max)
JC_MOST(double, int64_t, f64, min)
#undef JC_FIRST_OR
#undef JC_MOST

/* Pairs of neighbours: every other lane of two vectors, from `odd` on; and half of the lanes of two vectors in turns, from `from` on. */
#if defined(__GNUC__) && !defined(__clang__)
#define JC_TURNS(suffix) \
static inline jc_lanes_##suffix jc_others_##suffix(jc_lanes_##suffix v, jc_lanes_##suffix w, int odd) { \
    jc_marks_##suffix lane; \
    for (int i = 0; i < (int)JC_LANES_##suffix; ++i) lane[i] = 2 * i + odd; \
    return __builtin_shuffle(v, w, lane); \
} \
static inline jc_lanes_##suffix jc_turns_##suffix(jc_lanes_##suffix v, jc_lanes_##suffix w, int from) { \
    jc_marks_##suffix lane; \
    for (int i = 0; i < (int)JC_LANES_##suffix; ++i) lane[i] = from + i / 2 + i % 2 * (int)JC_LANES_##suffix; \
    return __builtin_shuffle(v, w, lane); \
}
#else
#define JC_TURNS(suffix) \
static inline jc_lanes_##suffix jc_others_##suffix(jc_lanes_##suffix v, jc_lanes_##suffix w, int odd) { \
    const int half = (int)JC_LANES_##suffix / 2; \
    jc_lanes_##suffix both = v; \
    for (int i = 0; i < half; ++i) both[i] = v[2 * i + odd], both[i + half] = w[2 * i + odd]; \
    return both; \
} \
static inline jc_lanes_##suffix jc_turns_##suffix(jc_lanes_##suffix v, jc_lanes_##suffix w, int from) { \
    jc_lanes_##suffix both = v; \
    for (int i = 0; i < (int)JC_LANES_##suffix / 2; ++i) both[2 * i] = v[from + i], both[2 * i + 1] = w[from + i]; \
    return both; \
}
#endif
JC_TURNS(f32)
JC_TURNS(f64)
#undef JC_TURNS

/* jc_load_evens and jc_load_odds: one of each of a run of pairs. jc_pass_pairs: the run of pairs. A part is the first n pairs. */
#define JC_PAIRS(T, suffix) \
static inline jc_lanes_##suffix jc_load_others_##suffix(const T *p, int odd) { \
    return jc_others_##suffix(jc_load_##suffix(p), jc_load_##suffix(p + JC_LANES_##suffix), odd); \
} \
static inline jc_lanes_##suffix jc_load_others_part_##suffix(const T *p, ptrdiff_t n, int odd) { \
    ptrdiff_t first = 2 * n < (ptrdiff_t)JC_LANES_##suffix ? 2 * n : (ptrdiff_t)JC_LANES_##suffix; \
    return jc_others_##suffix(jc_load_part_##suffix(p, first), jc_load_part_##suffix(p + first, 2 * n - first), odd); \
} \
static inline jc_lanes_##suffix jc_load_evens_##suffix(const T *p) { return jc_load_others_##suffix(p, 0); } \
static inline jc_lanes_##suffix jc_load_odds_##suffix(const T *p) { return jc_load_others_##suffix(p, 1); } \
static inline jc_lanes_##suffix jc_load_evens_part_##suffix(const T *p, ptrdiff_t n) { return jc_load_others_part_##suffix(p, n, 0); } \
static inline jc_lanes_##suffix jc_load_odds_part_##suffix(const T *p, ptrdiff_t n) { return jc_load_others_part_##suffix(p, n, 1); } \
static inline void jc_pass_pairs_##suffix(T *p, jc_lanes_##suffix evens, jc_lanes_##suffix odds, int streams) { \
    jc_pass_##suffix(p, jc_turns_##suffix(evens, odds, 0), streams); \
    jc_pass_##suffix(p + JC_LANES_##suffix, jc_turns_##suffix(evens, odds, (int)JC_LANES_##suffix / 2), streams); \
} \
static inline void jc_store_pairs_part_##suffix(T *p, jc_lanes_##suffix evens, jc_lanes_##suffix odds, ptrdiff_t n) { \
    T part[2 * JC_LANES_##suffix]; \
    jc_pass_pairs_##suffix(part, evens, odds, 0); \
    for (ptrdiff_t i = 0; i < 2 * n; ++i) p[i] = part[i]; \
}
JC_PAIRS(float, f32)
JC_PAIRS(double, f64)
#undef JC_PAIRS
#endif
