/* The vector mathematics of generated modules: branch-free inline functions that gcc vectorises where they are called in a loop.
 *
 * Every function stands in float (_f32) and double (_f64). Unless its comment says libm, it holds no branch and no call, keeps
 * subnormal arguments and results, propagates NaN and reaches the infinities where the true value does. Errors are in ulp of the
 * exact result, float then double, the largest measured under the flags below: of every sixteenth float, and of samples of double
 * (tests/test_vecmath.py asserts bounds against 180-bit arithmetic). Without FMA, gcc 12 leaves some loops over double scalar, and slow.
 *
 * Modules are compiled with -fassociative-math -freciprocal-math -fno-signed-zeros -fno-trapping-math -fno-math-errno. Under them a
 * compiler may delete (x + c) - c, merge the two steps of an argument reduction and remove compensations. So an operation whose
 * rounding matters is a `jc_fuse`: a fused multiply-add, which no compiler takes apart. A CPU without one multiplies and adds, and the
 * product and the sum pass through an integer operation with `jc_zero`, a zero that the compiler cannot see: it vectorises, and it stops
 * reassociation. (gcc's __builtin_assoc_barrier does not: gcc 12 drops it when it vectorises.)
 *
 * Polynomials are minimax fits (by Lawson's iteration) whose coefficients were rounded one at a time, lowest first, the others refitted each time.
 */
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__FMA__) || defined(__aarch64__) || (defined(__FP_FAST_FMA) && defined(__FP_FAST_FMAF))
#define JC_HAS_FMA 1
#else
#define JC_HAS_FMA 0
#endif

/* ------------------------------------------------------------------------------------------------ bits and opaque arithmetic */

static inline uint32_t jc_bits_f32(float x) { uint32_t u; memcpy(&u, &x, sizeof u); return u; }
static inline uint64_t jc_bits_f64(double x) { uint64_t u; memcpy(&u, &x, sizeof u); return u; }
static inline float jc_float_f32(uint32_t u) { float x; memcpy(&x, &u, sizeof x); return x; }
static inline double jc_float_f64(uint64_t u) { double x; memcpy(&x, &u, sizeof x); return x; }

/* jc_fuse: a b + c that no rewriting crosses (see the top); jc_fuse_once: rounded once on any CPU, through double where there is no FMA.
 * jc_madd: a b + c where any order of rounding will do: a Horner step. */
#if JC_HAS_FMA
static inline float jc_fuse_f32(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
static inline double jc_fuse_f64(double a, double b, double c) { return __builtin_fma(a, b, c); }
static inline float jc_fuse_once_f32(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
static inline float jc_madd_f32(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
static inline double jc_madd_f64(double a, double b, double c) { return __builtin_fma(a, b, c); }
#else
__attribute__((weak, visibility("hidden"))) uint32_t jc_zero_u32 = 0;      /* weak: the compiler may not assume its value */
__attribute__((weak, visibility("hidden"))) uint64_t jc_zero_u64 = 0;
static inline float jc_opaque_f32(float x) { return jc_float_f32(jc_bits_f32(x) ^ jc_zero_u32); }
static inline double jc_opaque_f64(double x) { return jc_float_f64(jc_bits_f64(x) ^ jc_zero_u64); }
static inline float jc_fuse_f32(float a, float b, float c) { return jc_opaque_f32(jc_opaque_f32(a * b) + c); }
static inline float jc_fuse_once_f32(float a, float b, float c) { return (float)((double)a * b + c); }
static inline double jc_fuse_f64(double a, double b, double c) { return jc_opaque_f64(jc_opaque_f64(a * b) + c); }
static inline float jc_madd_f32(float a, float b, float c) { return a * b + c; }
static inline double jc_madd_f64(double a, double b, double c) { return a * b + c; }
#endif

/* ------------------------------------------------------------------------------------------ small functions, as NumPy has them */

static inline float jc_abs_f32(float x) { return __builtin_fabsf(x); }
static inline double jc_abs_f64(double x) { return __builtin_fabs(x); }

/* 0.5 ulp, one instruction. */
static inline float jc_sqrt_f32(float x) { return __builtin_sqrtf(x); }
static inline double jc_sqrt_f64(double x) { return __builtin_sqrt(x); }

/* 1/√x, 1 ulp. */
static inline float jc_rsqrt_f32(float x) { return 1.0f / __builtin_sqrtf(x); }
static inline double jc_rsqrt_f64(double x) { return 1.0 / __builtin_sqrt(x); }

/* 1/√x where x > 0, else 0: the inverse norm whose convention at the zero vector is 0. NaN stays NaN. */
static inline float jc_rsqrt0_f32(float x) { return x <= 0.0f ? 0.0f : 1.0f / __builtin_sqrtf(x); }
static inline double jc_rsqrt0_f64(double x) { return x <= 0.0 ? 0.0 : 1.0 / __builtin_sqrt(x); }

static inline float jc_floor_f32(float x) { return __builtin_floorf(x); }
static inline double jc_floor_f64(double x) { return __builtin_floor(x); }
static inline float jc_ceil_f32(float x) { return __builtin_ceilf(x); }
static inline double jc_ceil_f64(double x) { return __builtin_ceil(x); }

/* -1, 0, 1, or NaN. */
static inline float jc_sign_f32(float x) { return x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : x; }
static inline double jc_sign_f64(double x) { return x > 0.0 ? 1.0 : x < 0.0 ? -1.0 : x; }

/* The larger or smaller; NaN if either is, as numpy.maximum and numpy.minimum. */
static inline float jc_max_f32(float a, float b) { return ((a >= b) | (a != a)) ? a : b; }
static inline double jc_max_f64(double a, double b) { return ((a >= b) | (a != a)) ? a : b; }
static inline float jc_min_f32(float a, float b) { return ((a <= b) | (a != a)) ? a : b; }
static inline double jc_min_f64(double a, double b) { return ((a <= b) | (a != a)) ? a : b; }

/* 1 where x > 0, else 0 (NaN too): the derivative of max(x, 0), where the constant wins the tie. */
static inline float jc_step_f32(float x) { return x > 0.0f ? 1.0f : 0.0f; }
static inline double jc_step_f64(double x) { return x > 0.0 ? 1.0 : 0.0; }

/* 1, 1/2 at 0, 0 (NaN too): the derivative of max(a, b) in a, at x = a - b. */
static inline float jc_half_step_f32(float x) { return x > 0.0f ? 1.0f : x == 0.0f ? 0.5f : 0.0f; }
static inline double jc_half_step_f64(double x) { return x > 0.0 ? 1.0 : x == 0.0 ? 0.5 : 0.0; }

/* ------------------------------------------------------------------------------------------------------- exp and its relatives */

/* x = n ln 2 + r, |r| <= ln(2)/2 (Cody and Waite, 1980). jc_exp_rest is r, jc_exp_reduced q = e^r - 1 = r + r² P(r); *n receives n in
 * its low bits, above them those of 1.5 times 2^23 or 2^52, which the shift of jc_pow2 drops. |x| must be far below 2^22.
 * P: degree 5, r² P in error by 2^-31.1 of q for f32; degree 9, 2^-55.6 for f64. */
static inline float jc_exp_rest_f32(float x, float bounded, uint32_t *n) {
    float t = jc_fuse_f32(bounded, 0x1.715476p+0f, 0x1.8p23f), k = t - 0x1.8p23f;
    float h = jc_fuse_f32(k, -0x1.62e400p-1f, x);                     /* 15 bits of ln 2: the product is exact */
    *n = jc_bits_f32(t);
    return jc_fuse_f32(k, -0x1.7f7d1cp-20f, h);
}
static inline float jc_exp_reduced_f32(float x, float bounded, uint32_t *n) {
    float r = jc_exp_rest_f32(x, bounded, n), p = 0x1.9e779ep-13f;
    p = jc_madd_f32(p, r, 0x1.6d3a50p-10f);
    p = jc_madd_f32(p, r, 0x1.1112d6p-7f);
    p = jc_madd_f32(p, r, 0x1.5554f8p-5f);
    p = jc_madd_f32(p, r, 0x1.555554p-3f);
    p = jc_madd_f32(p, r, 0.5f);
    return jc_fuse_f32(r * r, p, r);
}
/* As precise for e^r alone: P of degree 4, 2^-28.1 of e^r. */
static inline float jc_exp_tail_f32(float r) {
    float p = 0x1.6a5cc4p-10f;
    p = jc_madd_f32(p, r, 0x1.123e54p-7f);
    p = jc_madd_f32(p, r, 0x1.5558a4p-5f);
    p = jc_madd_f32(p, r, 0x1.55548ap-3f);
    return jc_madd_f32(p, r, 0x1.fffffcp-2f);
}
static inline float jc_exp_short_f32(float x, float bounded, uint32_t *n) {
    float r = jc_exp_rest_f32(x, bounded, n);
    return jc_fuse_f32(r * r, jc_exp_tail_f32(r), r);
}
static inline double jc_exp_reduced_f64(double x, double bounded, uint64_t *n) {
    double t = jc_fuse_f64(bounded, 0x1.71547652b82fep+0, 0x1.8p52), k = t - 0x1.8p52;
    double h = jc_fuse_f64(k, -0x1.62e42fefa0000p-1, x);              /* 37 bits of ln 2 */
    double r = jc_fuse_f64(k, -0x1.cf79abc9e3b3ap-40, h);
    double p = 0x1.ae95be3ae1f0fp-26;
    p = jc_madd_f64(p, r, 0x1.28a1b811f2b3dp-22);
    p = jc_madd_f64(p, r, 0x1.71de685512075p-19);
    p = jc_madd_f64(p, r, 0x1.a019a78d55936p-16);
    p = jc_madd_f64(p, r, 0x1.a01a018654d46p-13);
    p = jc_madd_f64(p, r, 0x1.6c16c17edc451p-10);
    p = jc_madd_f64(p, r, 0x1.1111111115018p-7);
    p = jc_madd_f64(p, r, 0x1.5555555552233p-5);
    p = jc_madd_f64(p, r, 0x1.555555555554ep-3);
    p = jc_madd_f64(p, r, 0x1.0000000000005p-1);
    *n = jc_bits_f64(t);
    return jc_fuse_f64(r * r, p, r);
}

/* 2^n from the low bits of n: -126..127 for f32, -1022..1023 for f64. */
static inline float jc_pow2_f32(uint32_t n) { return jc_float_f32((n + 127) << 23); }
static inline double jc_pow2_f64(uint64_t n) { return jc_float_f64((n + 1023) << 52); }

/* The smaller of x and an upper bound for the exponent alone, by the order of bits: one integer instruction. Below 0 it is x. A NaN is lost,
 * and passes through the reduction's other argument. (Two clamps of floats in a row become a tangle of masks in gcc 12.) */
static inline float jc_bounded_f32(float x, float high) {
    int32_t u = (int32_t)jc_bits_f32(x), h = (int32_t)jc_bits_f32(high);
    return jc_float_f32((uint32_t)(u < h ? u : h));
}
static inline double jc_bounded_f64(double x, double high) {
    int64_t u = (int64_t)jc_bits_f64(x), h = (int64_t)jc_bits_f64(high);
    return jc_float_f64((uint64_t)(u < h ? u : h));
}

/* exp(x) = 2^a (1 + q) 2^b with a + b = n: two scalings, so that the result may overflow or become subnormal.
 * 0.98 and 0.97 ulp. */
static inline float jc_exp_f32(float x) {
    uint32_t n;
    float q = jc_exp_short_f32(x, jc_bounded_f32(x, 89.0f), &n), a = jc_pow2_f32(n >> 1), b = jc_pow2_f32(n - (n >> 1));
    float y = jc_fuse_f32(q, a, a) * b;
    return x < -105.0f ? 0.0f : y;
}
static inline double jc_exp_f64(double x) {
    uint64_t n;
    double q = jc_exp_reduced_f64(x, jc_bounded_f64(x, 710.0), &n), a = jc_pow2_f64(n >> 1), b = jc_pow2_f64(n - (n >> 1));
    double y = jc_fuse_f64(q, a, a) * b;
    return x < -746.0 ? 0.0 : y;
}

/* exp(x) - 1 = (2^a q + (2^a - 2^-b)) 2^b: no cancellation, for |q| <= 0.42. 1.5 and 2.1 ulp. */
static inline float jc_expm1_f32(float x) {
    uint32_t n;
    float q = jc_exp_reduced_f32(x, jc_bounded_f32(x, 89.0f), &n), a = jc_pow2_f32(n >> 1), b = jc_pow2_f32(n - (n >> 1));
    float y = jc_fuse_f32(q, a, a - jc_pow2_f32((n >> 1) - n)) * b;
    return x < -20.0f ? -1.0f : y;
}
static inline double jc_expm1_f64(double x) {
    uint64_t n;
    double q = jc_exp_reduced_f64(x, jc_bounded_f64(x, 710.0), &n), a = jc_pow2_f64(n >> 1), b = jc_pow2_f64(n - (n >> 1));
    double y = jc_fuse_f64(q, a, a - jc_pow2_f64((n >> 1) - n)) * b;
    return x < -40.0 ? -1.0 : y;
}

/* The functions of a falling exponential, e = exp(-|x|) = s (1 + q) with s a power of two: sigmoid(x), sigmoid(-x) and softplus(x); of
 * jc_falling_less_one, which is as precise where 1 is subtracted, tanh(x/2). Where a loop takes several of one kind at one x, the compiler
 * keeps one exponential. 1 + e = (1 + s) + s q is rounded once. s is at most 1: scaled from above the subnormals it takes one product. */
static inline float jc_minus_abs_f32(float x) { float z = __builtin_fabsf(x); return z > 105.0f ? -105.0f : -z; }
static inline double jc_minus_abs_f64(double x) { double z = __builtin_fabs(x); return z > 746.0 ? -746.0 : -z; }
static inline float jc_scale_f32(uint32_t n) { return jc_pow2_f32(n + 26) * 0x1p-26f; }
static inline double jc_scale_f64(uint64_t n) { return jc_pow2_f64(n + 54) * 0x1p-54; }
#define JC_FALLING(T, N, suffix, name, reduced) \
static inline T jc_##name##_##suffix(T x, T *s) { \
    N n; \
    T q = reduced(jc_minus_abs_##suffix(x), jc_minus_abs_##suffix(x), &n); \
    *s = jc_scale_##suffix(n); \
    return q; \
}
JC_FALLING(float, uint32_t, f32, falling, jc_exp_short_f32)
JC_FALLING(float, uint32_t, f32, falling_less_one, jc_exp_reduced_f32)
JC_FALLING(double, uint64_t, f64, falling, jc_exp_reduced_f64)
JC_FALLING(double, uint64_t, f64, falling_less_one, jc_exp_reduced_f64)
#undef JC_FALLING

/* 1/(1 + exp(-x)): y = 1/(1 + e), or e y below 0. 2.06 and 1.8 ulp. */
static inline float jc_sigmoid_f32(float x) {
    float s, q = jc_falling_f32(x, &s), y = 1.0f / jc_fuse_once_f32(q, s, 1.0f + s);
    return x < 0.0f ? jc_fuse_once_f32(q, y * s, y * s) : y;
}
static inline double jc_sigmoid_f64(double x) {
    double s, q = jc_falling_f64(x, &s), y = 1.0 / jc_fuse_f64(q, s, 1.0 + s);
    return x < 0.0 ? jc_fuse_f64(q, y * s, y * s) : y;
}

/* tanh(x) = (1 - e)/(1 + e) with the sign of x, e = exp(-2|x|). 1 - e = (1 - s) - s q does not cancel, for s is 1 or at most 1/2.
 * 1.91 and 1.5 ulp. */
static inline float jc_tanh_f32(float x) {
    float s, q = jc_falling_less_one_f32(2.0f * x, &s);
    return __builtin_copysignf(jc_fuse_f32(-q, s, 1.0f - s) / jc_fuse_f32(q, s, 1.0f + s), x);
}
static inline double jc_tanh_f64(double x) {
    double s, q = jc_falling_less_one_f64(2.0 * x, &s);
    return __builtin_copysign(jc_fuse_f64(-q, s, 1.0 - s) / jc_fuse_f64(q, s, 1.0 + s), x);
}

/* ------------------------------------------------------------------------------------------------------- log and its relatives */

/* y where x is positive and finite; else x, which is infinity or NaN, -inf at 0, NaN below it. By bits, in integers. */
static inline float jc_log_ends_f32(float x, float y) {
    uint32_t u = jc_bits_f32(x), some = u << 1 < 1 ? u << 1 : 1;
    float end = (int32_t)u > 0 ? x : jc_float_f32(0xff800000u | some << 22);
    return u - 1u < 0x7f7fffffu ? y : end;
}
static inline double jc_log_ends_f64(double x, double y) {
    uint64_t u = jc_bits_f64(x), some = u << 1 < 1 ? u << 1 : 1;
    double end = (int64_t)u > 0 ? x : jc_float_f64(0xfff0000000000000u | some << 51);
    return u - 1u < 0x7fefffffffffffffu ? y : end;
}

/* log(1 + f) + k ln 2 (f32: k 2^-23 ln 2, k as it stands in the bits of a float) for 1 + f in [2/3, 4/3] (f32), [√½, √2] (f64).
 * f32: f + f² P(f), degree 8, in error by 2^-27.6 of log(1 + f).
 * f64: with s = f/(2 + f), z = s²: f - (f²/2 - s (f²/2 + z Q(z))), degree 6, 2^-59.3 (the form of fdlibm's e_log.c). */
static inline float jc_log_sum_f32(float f, float k) {
    float p = -0x1.080324p-3f;
    p = jc_madd_f32(p, f, 0x1.1e7aeep-3f);
    p = jc_madd_f32(p, f, -0x1.f31366p-4f);
    p = jc_madd_f32(p, f, 0x1.1ed302p-3f);
    p = jc_madd_f32(p, f, -0x1.559da8p-3f);
    p = jc_madd_f32(p, f, 0x1.99d06ap-3f);
    p = jc_madd_f32(p, f, -0x1.fffef2p-3f);
    p = jc_madd_f32(p, f, 0x1.555506p-2f);
    p = jc_madd_f32(p, f, -0.5f);
    return jc_fuse_f32(k, 0x1.62e430p-24f, jc_fuse_f32(f * f, p, f));
}
static inline double jc_log_sum_f64(double f, double k) {
    double s = f / (2.0 + f), z = s * s, p = 0x1.2e9a9516640abp-3;
    p = jc_madd_f64(p, z, 0x1.39ad5a4752cacp-3);
    p = jc_madd_f64(p, z, 0x1.7465be92e7cdep-3);
    p = jc_madd_f64(p, z, 0x1.c71c54cfec380p-3);
    p = jc_madd_f64(p, z, 0x1.2492493df1726p-2);
    p = jc_madd_f64(p, z, 0x1.999999998568ap-2);
    p = jc_madd_f64(p, z, 0x1.555555555557cp-1);
    double h = 0.5 * f * f;
    double c = jc_fuse_f64(s, jc_madd_f64(p, z, h), k * 0x1.cf79abc9e3b3ap-40);     /* the low part of ln 2 */
    c = jc_fuse_f64(-0.5 * f, f, c);
    return jc_fuse_f64(k, 0x1.62e42fefa0000p-1, jc_fuse_f64(f, 1.0, c));
}

/* log(x): x = 2^k m by the bits of x, a subnormal first scaled up. -inf at 0, NaN below. 0.93 and 0.75 ulp (1.1 and
 * 0.80 without FMA). */
static inline float jc_log_f32(float x) {
    float c = x < 0x1p-126f ? 0x1p25f : 1.0f;                         /* one choice: gcc 12 makes two loops' work of two */
    uint32_t u = jc_bits_f32(x * c), e = (u - 0x3f2aaaabu) & 0xff800000u;
    float k = (float)(int32_t)(e - (jc_bits_f32(c) - 0x3f800000u));
    return jc_log_ends_f32(x, jc_log_sum_f32(jc_float_f32(u - e) - 1.0f, k));
}
/* The exponent of a double as a double, from bits of which only the exponent field counts: or-ed into 2^52, and that taken off. */
static inline double jc_exponent_f64(uint64_t e) { return jc_float_f64((e >> 52) | 0x4330000000000000u) - 0x1p52; }
static inline double jc_log_f64(double x) {
    double c = x < 0x1p-1022 ? 0x1p54 : 1.0;
    uint64_t u = jc_bits_f64(x * c), e = (u - 0x3fe6a09e667f3bcdu + 0x4000000000000000u) & 0xfff0000000000000u;
    double k = jc_exponent_f64(e - jc_bits_f64(c) + 0x43f0000000000000u) - 1088.0;
    return jc_log_ends_f64(x, jc_log_sum_f64(jc_float_f64(u - e + 0x4000000000000000u) - 1.0, k));
}

/* log(1 + x): only the exponent k is taken from the rounded 1 + x; f = 2^-k x + (2^-k - 1) then has one rounding. Beyond 2^30 (2^60)
 * log(1 + x) is log(x). 1.5 and 0.80 ulp (1.7 and 0.80). */
static inline float jc_log1p_f32(float x) {
    uint32_t u = jc_bits_f32(1.0f + x), e = (u - 0x3f2aaaabu) & 0xff800000u;
    float s = jc_float_f32(0x3f800000u - e);
    float f = x > 0x1p30f ? jc_fuse_f32(jc_float_f32(u - e - 0x00800000u), 2.0f, -1.0f) : jc_fuse_f32(x, s, s - 1.0f);
    float y = jc_log_sum_f32(f, (float)(int32_t)e);
    y = x < __builtin_inff() ? y : x;
    return x > -1.0f ? y : x == -1.0f ? -__builtin_inff() : __builtin_nanf("");
}
static inline double jc_log1p_f64(double x) {
    uint64_t u = jc_bits_f64(1.0 + x), e = (u - 0x3fe6a09e667f3bcdu + 0x4000000000000000u) & 0xfff0000000000000u;
    double s = jc_float_f64(0x7ff0000000000000u - e);
    double f = x > 0x1p60 ? jc_fuse_f64(jc_float_f64(u - e + 0x3ff0000000000000u), 2.0, -1.0) : jc_fuse_f64(x, s, s - 1.0);
    double y = jc_log_sum_f64(f, jc_exponent_f64(e) - 1024.0);
    y = x < __builtin_inf() ? y : x;
    return x > -1.0 ? y : x == -1.0 ? -__builtin_inf() : __builtin_nan("");
}

/* log(1 + exp(-|x|)), which is log(1 + e), halved for e above 1/3 (√2 - 1). */
static inline float jc_log1p_falling_f32(float x) {
    float s, q = jc_falling_f32(x, &s), e = jc_fuse_f32(q, s, s);
    int upper = e > 0x1.555556p-2f;
    return jc_log_sum_f32(upper ? jc_fuse_f32(e, 0.5f, -0.5f) : e, upper ? 0x1p23f : 0.0f);
}
static inline double jc_log1p_falling_f64(double x) {
    double s, q = jc_falling_f64(x, &s), e = jc_fuse_f64(q, s, s);
    int upper = e > 0x1.a827999fcef32p-2;
    return jc_log_sum_f64(upper ? jc_fuse_f64(e, 0.5, -0.5) : e, upper ? 1.0 : 0.0);
}

/* log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|)). 1.8 and 1.6 ulp (1.9 and 1.6). */
static inline float jc_softplus_f32(float x) { return (x > 0.0f ? x : 0.0f) + jc_log1p_falling_f32(x); }
static inline double jc_softplus_f64(double x) { return (x > 0.0 ? x : 0.0) + jc_log1p_falling_f64(x); }

/* log(sigmoid(x)) = min(x, 0) - log(1 + exp(-|x|)). 1.9 and 1.6 ulp. */
static inline float jc_log_sigmoid_f32(float x) { return (x < 0.0f ? x : 0.0f) - jc_log1p_falling_f32(x); }
static inline double jc_log_sigmoid_f64(double x) { return (x < 0.0 ? x : 0.0) - jc_log1p_falling_f64(x); }

/* ------------------------------------------------------------------------------------------------------------------------- erf */

/* erf(x) with the sign of x, in two parts, all errors relative to erf, up to where it is 1.
 * f32: x + x P(x²) up to 0.5 (degree 4, 2^-29.3); beyond, 1 - 2^(Q(|x|)/2) (Q of degree 6 on [0.5, 3.93], 2^-27.7): Q/2 = n + f/2, and
 * 2^(f/2) = 1 + f G(f) (degree 5, 2^-26.2), so that 1 - 2^n - 2^n f G(f) is rounded once. The halves keep the reduction fused.
 * f64: x + x P(x²) below 1 (degree 11, 2^-55.9), else 1 - exp(Q(|x|)) (degree 17 on [1, 5.95], 2^-56.1).
 * 1.26 and 0.95 ulp (1.3 and 1.3). */
static inline float jc_erf_f32(float x) {
    float z = __builtin_fabsf(x), w = x * x;
    float p = 0x1.357050p-8f;
    p = jc_madd_f32(p, w, -0x1.b66bc2p-6f);
    p = jc_madd_f32(p, w, 0x1.ce2554p-4f);
    p = jc_madd_f32(p, w, -0x1.812734p-2f);
    p = jc_madd_f32(p, w, 0x1.06eba8p-3f);
    float t = jc_bounded_f32(z, 3.93f), r = 0x1.527e18p-11f;
    r = jc_madd_f32(r, t, -0x1.37ce90p-7f);
    r = jc_madd_f32(r, t, 0x1.11d6f6p-4f);
    r = jc_madd_f32(r, t, -0x1.386f70p-2f);
    r = jc_madd_f32(r, t, -0x1.d540b2p+0f);
    r = jc_madd_f32(r, t, -0x1.a0de96p+1f);
    r = jc_madd_f32(r, t, 0x1.b8990cp-14f);
    float k = jc_fuse_f32(r, 0.5f, 0x1.8p23f), f = jc_fuse_f32(k - 0x1.8p23f, -2.0f, r), s = jc_pow2_f32(jc_bits_f32(k)), g = 0x1.17b7c8p-19f;
    g = jc_madd_f32(g, f, 0x1.5ef50ep-15f);
    g = jc_madd_f32(g, f, 0x1.3b680ap-11f);
    g = jc_madd_f32(g, f, 0x1.c6af9ep-8f);
    g = jc_madd_f32(g, f, 0x1.ebfb94p-5f);
    g = jc_madd_f32(g, f, 0x1.62e430p-2f);
    float y = __builtin_copysignf(jc_fuse_f32(-s * f, g, 1.0f - s), x);
    return z > 0.5f ? y : jc_fuse_f32(x, p, x);
}
static inline double jc_erf_f64(double x) {
    uint64_t n;
    double z = __builtin_fabs(x), w = x * x;
    double p = -0x1.a22671af93e38p-31;
    p = jc_madd_f64(p, w, 0x1.d3d7de3f555e1p-27);
    p = jc_madd_f64(p, w, -0x1.5b8bd59c12e01p-23);
    p = jc_madd_f64(p, w, 0x1.b96b46e6bf286p-20);
    p = jc_madd_f64(p, w, -0x1.f4c82df45e633p-17);
    p = jc_madd_f64(p, w, 0x1.f9a296aa4b970p-14);
    p = jc_madd_f64(p, w, -0x1.c02daeb6cc034p-11);
    p = jc_madd_f64(p, w, 0x1.565bcceed99b1p-8);
    p = jc_madd_f64(p, w, -0x1.b82ce311a97c1p-6);
    p = jc_madd_f64(p, w, 0x1.ce2f21a03f8b9p-4);
    p = jc_madd_f64(p, w, -0x1.812746b03799dp-2);
    p = jc_madd_f64(p, w, 0x1.06eba8214db68p-3);
    double t = z > 5.95 ? 5.95 : z, r = -0x1.5ada318617c7ap-38;
    r = jc_madd_f64(r, t, 0x1.c1bac3ba5e206p-33);
    r = jc_madd_f64(r, t, -0x1.0e61924d49707p-28);
    r = jc_madd_f64(r, t, 0x1.8ecc5a733038bp-25);
    r = jc_madd_f64(r, t, -0x1.90dbadfab6916p-22);
    r = jc_madd_f64(r, t, 0x1.1eaa22e13965dp-19);
    r = jc_madd_f64(r, t, -0x1.22d76854a12c5p-17);
    r = jc_madd_f64(r, t, 0x1.7eee08b9581bcp-16);
    r = jc_madd_f64(r, t, -0x1.54193af264f77p-16);
    r = jc_madd_f64(r, t, -0x1.1b337bc6a0235p-13);
    r = jc_madd_f64(r, t, 0x1.9407f83e8d339p-11);
    r = jc_madd_f64(r, t, -0x1.f63f8d311666ap-10);
    r = jc_madd_f64(r, t, 0x1.ae8e75bf691ecp-12);
    r = jc_madd_f64(r, t, 0x1.3722a26bdd0a9p-6);
    r = jc_madd_f64(r, t, -0x1.a4ac5e523ee50p-4);
    r = jc_madd_f64(r, t, -0x1.45f6274043c5fp-1);
    r = jc_madd_f64(r, t, -0x1.20dd1fd6165bcp+0);
    r = jc_madd_f64(r, t, -0x1.0df030b7b4c27p-21);
    double q = jc_exp_reduced_f64(r, r, &n), s = jc_pow2_f64(n);
    double y = __builtin_copysign(jc_fuse_f64(-q, s, 1.0 - s), x);
    return z >= 1.0 ? y : jc_fuse_f64(x, p, x);
}

/* ----------------------------------------------------------------------------------------------------------------- sin and cos */

/* 32 bits from bit `shift` on of two words, and the upper half of a product. */
static inline uint32_t jc_straddle(uint32_t high, uint32_t low, uint32_t shift) { return (high << shift) | (low >> 1 >> (31 - shift)); }
static inline uint32_t jc_upper_product(uint32_t a, uint32_t b) { return (uint32_t)((uint64_t)a * b >> 32); }

/* |x| = k π/2 + r, |r| <= π/4, on the whole line (Payne and Hanek, 1983), in integers; returns k, of which the low two bits count. With
 * |x| = m 2^e, m of 24 bits, |x| 2/π is wanted modulo 4: m times those 96 bits of 2/π whose weights start at 2^(1-e), for bits above them
 * give multiples of 4. They lie in the words j..j+3 of 2/π (after 34 zeros), shifted left by e mod 32. j = 1 + e/32 is 0 to 4, and choices
 * by its three bits take the place of a table. The upper 64 bits of the product are k, rounded, and a signed fraction of π/2, whose upper
 * 22 and next 31 bits are two exact floats. Below 2^-9, r is |x|. */
static inline uint32_t jc_quadrant_f32(float x, float *r) {
    float z = __builtin_fabsf(x);
    uint32_t u = jc_bits_f32(z), m = (u & 0x007fffffu) | 0x00800000u, s = (u >> 23) - 118u, t = s & 31u;
    uint32_t g0 = s & 128u ? 0x7d4d3770u : s & 64u ? 0x9391054au : 0x00000000u;
    uint32_t g1 = s & 128u ? 0x36d8a566u : s & 64u ? 0x7f09d5f4u : 0x28be60dbu;
    uint32_t g2 = s & 128u ? 0x4f10e410u : s & 64u ? 0x7d4d3770u : 0x9391054au;
    uint32_t g3 = s & 128u ? 0x7f9458eau : s & 64u ? 0x36d8a566u : 0x7f09d5f4u;
    uint32_t g4 = s & 128u ? 0u : s & 64u ? 0x4f10e410u : 0x7d4d3770u;
    uint32_t h0 = s & 32u ? g1 : g0, h1 = s & 32u ? g2 : g1, h2 = s & 32u ? g3 : g2, h3 = s & 32u ? g4 : g3;
    uint32_t a = jc_straddle(h0, h1, t), b = jc_straddle(h1, h2, t), c = jc_straddle(h2, h3, t);
    uint32_t last = jc_upper_product(m, c), low = m * b + last, high = m * a + jc_upper_product(m, b) + (low < last ? 1u : 0u);
    uint32_t k = (high + 0x20000000u) >> 30;
    int32_t whole = (int32_t)(high - (k << 30)), upper = (whole + 128) >> 8;
    int32_t rest = (int32_t)(((uint32_t)whole - ((uint32_t)upper << 8)) << 23 | low >> 9);
    float f = (float)upper, y = jc_madd_f32(f, -0x1.777a5cp-47f, (float)rest * 0x1.921fb6p-53f);
    *r = z < 0x1p-9f ? z : jc_fuse_once_f32(f, 0x1.921fb6p-22f, y);
    return z < 0x1p-9f ? 0u : k;
}

/* The sine of r + k π/2. On |r| <= π/4: r + r³ S(r²), 2^-28.0 of sin, and 1 - r²/2 + r⁴ C(r²), 2^-33.1, of degree 2 both. */
static inline float jc_turned_sin_f32(float r, uint32_t k) {
    float w = r * r, p = -0x1.9955aep-13f, q = 0x1.99e0f2p-16f;
    p = jc_madd_f32(p, w, 0x1.11077cp-7f);
    p = jc_madd_f32(p, w, -0x1.555546p-3f);
    q = jc_madd_f32(q, w, -0x1.6c0c1ap-10f);
    q = jc_madd_f32(q, w, 0x1.55554ap-5f);
    float y = k & 1u ? jc_fuse_f32(w * w, q, jc_fuse_f32(w, -0.5f, 1.0f)) : jc_fuse_f32(r * w, p, r);
    return jc_float_f32(jc_bits_f32(y) ^ (k & 2u) << 30);
}

/* NaN at the infinities. */
static inline float jc_sin_f32(float x) {
    float r;
    uint32_t k = jc_quadrant_f32(x, &r);
    float y = jc_turned_sin_f32(r, k);
    y = jc_float_f32(jc_bits_f32(y) ^ (jc_bits_f32(x) & 0x80000000u));
    return __builtin_fabsf(x) < __builtin_inff() ? y : __builtin_nanf("");
}
static inline float jc_cos_f32(float x) {
    float r;
    uint32_t k = jc_quadrant_f32(x, &r);
    float y = jc_turned_sin_f32(r, k + 1u);
    return __builtin_fabsf(x) < __builtin_inff() ? y : __builtin_nanf("");
}

/* ----------------------------------------------------------------------------------------------------------------------- power */

/* x^y = exp(y log |x|) in double, which leaves one rounding to float: 0.51 ulp. Infinite factors count as the largest finite ones, so that
 * 1^y and x^0 are 1; y counts as 0 where x is 1. The sign is that of x where y is odd; below 0 NaN where y is not whole. All is arithmetic
 * of bits, with no truth value that depends on x alone, which would keep gcc 12 from vectorising a loop over y. What does depend on x
 * alone, the logarithm, is taken before such a loop. */
static inline float jc_pow_f32(float x, float y) {
    double l = jc_log_f64((double)__builtin_fabsf(x));
    uint64_t w = jc_bits_f64(l);
    uint32_t v = jc_bits_f32(y) & (0u - (uint32_t)(x != 1.0f));
    w -= (w << 1) == 0xffe0000000000000u;
    v -= (v << 1) == 0xff000000u;
    float e = jc_float_f32(v), r = (float)jc_exp_f64((double)e * jc_float_f64(w)), half = 0.5f * e;
    float odd = __builtin_floorf(half) == half ? 1.0f : x, part = __builtin_floorf(e) == e ? 1.0f : x;
    odd = __builtin_floorf(e) == e ? odd : 1.0f;
    r = jc_float_f32(jc_bits_f32(r) ^ (jc_bits_f32(odd) & 0x80000000u));
    r = (part < 0.0f) & (part > -__builtin_inff()) ? __builtin_nanf("") : r;
    return e == 0.0f ? 1.0f : r;
}

/* -------------------------------------------------------------------------- libm: right on the whole line, but not vectorised */

/* Float errors measured with glibc 2.36: at most 1.8 ulp. */
#define JC_LIBM(name) \
    static inline float jc_##name##_f32(float x) { return name##f(x); } \
    static inline double jc_##name##_f64(double x) { return name(x); }
#define JC_LIBM_WIDE(name) /* libm's float versions err by 2.5 ulp and more */ \
    static inline float jc_##name##_f32(float x) { return (float)name((double)x); } \
    static inline double jc_##name##_f64(double x) { return name(x); }
JC_LIBM(tan)
JC_LIBM(asin)
JC_LIBM(acos)
JC_LIBM(atan)
JC_LIBM(sinh)
JC_LIBM(cosh)
JC_LIBM(asinh)
JC_LIBM(acosh)
JC_LIBM(atanh)
JC_LIBM_WIDE(erfc)
JC_LIBM_WIDE(lgamma)
#undef JC_LIBM
#undef JC_LIBM_WIDE
static inline double jc_sin_f64(double x) { return sin(x); }
static inline double jc_cos_f64(double x) { return cos(x); }
static inline float jc_atan2_f32(float y, float x) { return atan2f(y, x); }
static inline double jc_atan2_f64(double y, double x) { return atan2(y, x); }
static inline double jc_pow_f64(double x, double y) { return pow(x, y); }

/* --------------------------------------------------------------------------------------------------------- integers of an index */

/* Quotient and remainder as Python has them: rounded down (up), the remainder with the sign of b. By 0, as the bounds of
 * an empty axis may divide, the quotient is 0. */
static inline ptrdiff_t jc_floordiv(ptrdiff_t a, ptrdiff_t b) { return b == 0 ? 0 : a / b - ((a % b != 0) & ((a % b < 0) != (b < 0))); }
static inline ptrdiff_t jc_ceildiv(ptrdiff_t a, ptrdiff_t b) { return b == 0 ? 0 : a / b + ((a % b != 0) & ((a % b < 0) == (b < 0))); }
static inline ptrdiff_t jc_mod(ptrdiff_t a, ptrdiff_t b) { return b == 0 ? a : a % b + (((a % b != 0) & ((a % b < 0) != (b < 0))) ? b : 0); }
static inline ptrdiff_t jc_min(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }
static inline ptrdiff_t jc_max(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }

/* ------------------------------------------------------------------------------------------------------------- streaming stores */

/* Copy a finished line of n values past the cache, for results that outgrow it. The lines must not overlap; dst is aligned as its
 * type. The thread that stored calls jc_stream_fence before another may read. Elsewhere than on x86 it is a plain copy. The builtins
 * are named here because <immintrin.h> costs 0.13 s of each compilation; whole vectors matter: 16-byte stores were three times as slow
 * as 64-byte ones. */
#if defined(__has_builtin)
#if __has_builtin(__builtin_nontemporal_store) && defined(__AVX512F__)
#define JC_STREAM_BYTES 64
#define JC_STREAM_F32(p, v) __builtin_nontemporal_store(v, (jc_vector_f32 *)(p))
#define JC_STREAM_F64(p, v) __builtin_nontemporal_store(v, (jc_vector_f64 *)(p))
#elif __has_builtin(__builtin_nontemporal_store) && defined(__AVX__)
#define JC_STREAM_BYTES 32
#define JC_STREAM_F32(p, v) __builtin_nontemporal_store(v, (jc_vector_f32 *)(p))
#define JC_STREAM_F64(p, v) __builtin_nontemporal_store(v, (jc_vector_f64 *)(p))
#elif __has_builtin(__builtin_ia32_movntps512) && defined(__AVX512F__)
#define JC_STREAM_BYTES 64
#define JC_STREAM_F32 __builtin_ia32_movntps512
#define JC_STREAM_F64 __builtin_ia32_movntpd512
#elif __has_builtin(__builtin_ia32_movntps256) && defined(__AVX__)
#define JC_STREAM_BYTES 32
#define JC_STREAM_F32 __builtin_ia32_movntps256
#define JC_STREAM_F64 __builtin_ia32_movntpd256
#endif
#endif
#if defined(JC_STREAM_BYTES)
typedef float jc_vector_f32 __attribute__((vector_size(JC_STREAM_BYTES)));
typedef double jc_vector_f64 __attribute__((vector_size(JC_STREAM_BYTES)));
static inline void jc_stream_f32(float *restrict dst, const float *restrict src, ptrdiff_t n) {
    const ptrdiff_t width = JC_STREAM_BYTES / sizeof *src;
    ptrdiff_t i = 0;
    for (; i < n && ((uintptr_t)(dst + i) & 63); ++i) dst[i] = src[i];              /* up to a cache line */
    for (; i + width <= n; i += width) { jc_vector_f32 v; memcpy(&v, src + i, sizeof v); JC_STREAM_F32(dst + i, v); }
    for (; i < n; ++i) dst[i] = src[i];
}
static inline void jc_stream_f64(double *restrict dst, const double *restrict src, ptrdiff_t n) {
    const ptrdiff_t width = JC_STREAM_BYTES / sizeof *src;
    ptrdiff_t i = 0;
    for (; i < n && ((uintptr_t)(dst + i) & 63); ++i) dst[i] = src[i];
    for (; i + width <= n; i += width) { jc_vector_f64 v; memcpy(&v, src + i, sizeof v); JC_STREAM_F64(dst + i, v); }
    for (; i < n; ++i) dst[i] = src[i];
}
static inline void jc_stream_fence(void) { __builtin_ia32_sfence(); }
#else
static inline void jc_stream_f32(float *restrict dst, const float *restrict src, ptrdiff_t n) { memcpy(dst, src, (size_t)n * sizeof *src); }
static inline void jc_stream_f64(double *restrict dst, const double *restrict src, ptrdiff_t n) { memcpy(dst, src, (size_t)n * sizeof *src); }
static inline void jc_stream_fence(void) {}
#endif

/* Copy a run of n values into an array of `whole`: past the cache if the array outgrows it and the run is long or ends where cache
 * lines do, so that no line is written in part; else by plain stores. What lies at `next`, if that is not NULL, is asked
 * for meanwhile. A fence as above. */
#define JC_COPY_STREAMED 4194304
#define JC_COPY_LONG 2048
#define JC_COPY(suffix, real)                                                                                                     \
    static inline int jc_streamed_##suffix(const real *place, ptrdiff_t n, ptrdiff_t whole) {                                      \
        const int whole_lines = !((((uintptr_t)place) | (uintptr_t)n * sizeof(real)) & 63);                                       \
        return whole >= (ptrdiff_t)(JC_COPY_STREAMED / sizeof(real)) && (whole_lines || n >= (ptrdiff_t)(JC_COPY_LONG / sizeof(real)));\
    }                                                                                                                             \
    static inline void jc_copy_##suffix(real *dst, const real *src, const real *next, ptrdiff_t n, ptrdiff_t whole) {               \
        const ptrdiff_t line = 64 / sizeof(real), part = next && !((uintptr_t)dst & 63) ? 8 * line : n;                           \
        const int streamed = jc_streamed_##suffix(dst, n, whole);                                                                 \
        for (ptrdiff_t first = 0, count; first < n; first += count) {                                                             \
            count = n - first < part ? n - first : part;                                                                          \
            if (next) for (ptrdiff_t i = 0; i < count; i += line) __builtin_prefetch(next + first + i, 0, 2);                      \
            if (streamed) jc_stream_##suffix(dst + first, src + first, count);                                                    \
            else for (ptrdiff_t i = first; i < first + count; ++i) dst[i] = src[i];                                               \
        }                                                                                                                         \
    }
JC_COPY(f32, float)
JC_COPY(f64, double)
#undef JC_COPY

/* Where a loop writes n values of an array of `whole`: a line that is streamed when it is done (jc_leave), if the array outgrows the
 * cache and the run is long enough or ends where cache lines do; else the place itself. */
#define JC_LINE(suffix, real)                                                                                                     \
    static inline real *jc_beside_##suffix(real *line, real *place, ptrdiff_t n, ptrdiff_t whole) {                                 \
        return jc_streamed_##suffix(place, n, whole) ? line : place;                                                              \
    }                                                                                                                             \
    static inline void jc_leave_##suffix(real *place, const real *into, ptrdiff_t n) {                                            \
        if (into != place) jc_stream_##suffix(place, into, n);                                                                    \
    }
JC_LINE(f32, float)
JC_LINE(f64, double)
#undef JC_LINE

/* Set a run of n values: past the cache if it is larger than a core's own, for little of it would still be there when it is read. */
#define JC_FILL_STREAMED 4194304
#if defined(JC_STREAM_BYTES)
#define JC_FILL(suffix, real, store)                                                                                              \
    static inline void jc_fill_##suffix(real *dst, ptrdiff_t n, real value) {                                                     \
        const ptrdiff_t width = JC_STREAM_BYTES / sizeof value;                                                                   \
        ptrdiff_t i = 0;                                                                                                          \
        if (n >= (ptrdiff_t)(JC_FILL_STREAMED / sizeof value)) {                                                                  \
            const jc_vector_##suffix whole = value - (jc_vector_##suffix){0};                                                     \
            for (; i < n && ((uintptr_t)(dst + i) & 63); ++i) dst[i] = value;                                                     \
            for (; i + width <= n; i += width) store(dst + i, whole);                                                             \
            jc_stream_fence();                                                                                                    \
        }                                                                                                                         \
        for (; i < n; ++i) dst[i] = value;                                                                                        \
    }
JC_FILL(f32, float, JC_STREAM_F32)
JC_FILL(f64, double, JC_STREAM_F64)
#undef JC_FILL
#else
static inline void jc_fill_f32(float *dst, ptrdiff_t n, float value) { for (ptrdiff_t i = 0; i < n; ++i) dst[i] = value; }
static inline void jc_fill_f64(double *dst, ptrdiff_t n, double value) { for (ptrdiff_t i = 0; i < n; ++i) dst[i] = value; }
#endif
