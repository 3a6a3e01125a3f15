/* Matrix products of generated kernels where the compiler may use wide fused multiply-adds: `jc_product`, row-major,
 * `C[m, n] = alpha op(A)[m, k] op(B)[k, n] (+ C)`. Elsewhere `jc_gemm` calls the BLAS (see jaccomp_blas.h).
 *
 * A tile of C stays in registers: JC_TILE_ROWS rows of JC_TILE_VECTORS vectors. What it reads is packed, so that it goes through
 * memory in order whatever the strides: of A as many rows as fit the second cache, of B one panel as wide as the tile, which stays
 * in the first. The lines of the next panel are asked for while the tile works on this one: a product of few rows, which
 * reads much of B for each of its operations, then takes no longer than its arithmetic.
 *
 * Each element of C is a sum over blocks of JC_TILE_CHAIN bytes of k, each a chain of fused multiply-adds in order: short chains lose
 * less, and its bits depend on k and on nothing else, neither on where a caller cuts m and n, nor on strides. `elements` is the size of the array that C is
 * part of: one that outgrows the caches is written past them where each element is written once. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 9 && (defined(__AVX512F__) || (defined(__AVX2__) && defined(__FMA__)))
#define JC_PRODUCT 1
#if defined(__AVX512F__)
#define JC_TILE_ROWS 8
#define JC_TILE_VECTORS 2
#else
#define JC_TILE_ROWS 4
#define JC_TILE_VECTORS 3
#endif
#define JC_TILE_DEPTH 1024
#define JC_TILE_CHAIN 512
#define JC_PACKED_ROWS 64      /* rows of A packed on the stack, which a thread's may be expected to hold */
#define JC_PACKED_MOST 256     /* and elsewhere */
#define JC_PRODUCT_STREAMED 4194304
#define JC_UNROLLED _Pragma("GCC unroll 32")
#define JC_ROLLED _Pragma("GCC unroll 1")
#define JC_INLINED static inline __attribute__((always_inline))

/* Which lines the tile asks for while it works: `at`, then every `step` bytes, `period` times, then as many again `chunk` bytes on.
 * Where the next panel lies in rows, it is copied `to` its place meanwhile, row by row until `stop`: rows that are a power of two apart
 * would drive each other from the second cache before their turn came. */
typedef struct { uintptr_t at; ptrdiff_t step, chunk, period, done, group; char *to, *stop; } jc_ahead;
#define JC_ROWS_AHEAD 16

#if defined(JC_STREAM_BYTES) && JC_STREAM_BYTES == JC_LANE_BYTES && JC_LANE_BYTES == 64
#define JC_TILE_STREAMS 1
#else
#define JC_TILE_STREAMS 0
#endif

#define JC_PRODUCT_OF(real, whole, suffix, stream)                                                                                \
typedef real jc_line_##suffix __attribute__((vector_size(JC_LANE_BYTES), aligned(sizeof(real)), may_alias));                      \
typedef whole jc_picks_##suffix __attribute__((vector_size(JC_LANE_BYTES)));                                                      \
enum {                                                                                                                            \
    jc_width_##suffix = JC_LANE_BYTES / sizeof(real),                                                                             \
    jc_panel_##suffix = JC_TILE_VECTORS * jc_width_##suffix,                                                                      \
    jc_depth_##suffix = JC_TILE_DEPTH / sizeof(real),                                                                             \
    jc_chain_##suffix = JC_TILE_CHAIN / sizeof(real),                                                                             \
};                                                                                                                                \
/* Interleaves the first half of the vectors with the second, log2 of `count` times: lane j of vector i comes to place            \
   `count` j + i of them all, which for as many vectors as lanes is their transpose. */                                           \
JC_INLINED void jc_zip_##suffix(jc_lanes_##suffix *v, int count) {                                                                \
    jc_picks_##suffix low, high;                                                                                                  \
    JC_UNROLLED for (int i = 0; i < jc_width_##suffix; ++i) {                                                                     \
        low[i] = (whole)((i & 1) * jc_width_##suffix + i / 2);                                                                    \
        high[i] = low[i] + jc_width_##suffix / 2;                                                                                 \
    }                                                                                                                             \
    JC_UNROLLED for (int round = 1; round < count; round *= 2) {                                                                  \
        jc_lanes_##suffix zipped[jc_width_##suffix];                                                                              \
        JC_UNROLLED for (int i = 0; i < count / 2; ++i) {                                                                         \
            zipped[2 * i] = __builtin_shuffle(v[i], v[i + count / 2], low);                                                       \
            zipped[2 * i + 1] = __builtin_shuffle(v[i], v[i + count / 2], high);                                                  \
        }                                                                                                                         \
        JC_UNROLLED for (int i = 0; i < count; ++i) v[i] = zipped[i];                                                             \
    }                                                                                                                             \
}                                                                                                                                 \
/* dst[p * width + i] = src[i * ld + p] for `count` i, 0 from `rows` on. `count` divides the lanes; if it is less, so is `width`. */\
JC_INLINED void jc_turn_##suffix(const real *src, ptrdiff_t ld, ptrdiff_t rows, ptrdiff_t k, int count, real *dst, int width) {   \
    ptrdiff_t p = 0;                                                                                                              \
    for (; p + jc_width_##suffix <= k; p += jc_width_##suffix) {                                                                  \
        jc_lanes_##suffix v[jc_width_##suffix];                                                                                   \
        JC_UNROLLED for (int i = 0; i < count; ++i)                                                                               \
            v[i] = i < rows ? *(const jc_line_##suffix *)(src + i * ld + p) : (jc_line_##suffix){0};                              \
        jc_zip_##suffix(v, count);                                                                                                \
        JC_UNROLLED for (int i = 0; i < count; ++i)                                                                               \
            *(jc_line_##suffix *)(dst + p * width + i * (count < jc_width_##suffix ? jc_width_##suffix : width)) = v[i];          \
    }                                                                                                                             \
    for (; p < k; ++p) for (int i = 0; i < count; ++i) dst[p * width + i] = i < rows ? src[i * ld + p] : 0;                       \
}                                                                                                                                 \
/* dst[p * width + i] = src[p * ld + i], 0 from column `columns` on. */                                                           \
JC_INLINED void jc_along_##suffix(const real *src, ptrdiff_t ld, ptrdiff_t columns, ptrdiff_t k, real *dst, int width) {          \
    if (columns >= width) for (ptrdiff_t p = 0; p < k; ++p) memcpy(dst + p * width, src + p * ld, (size_t)width * sizeof(real));  \
    else for (ptrdiff_t p = 0; p < k; ++p) for (int i = 0; i < width; ++i) dst[p * width + i] = i < columns ? src[p * ld + i] : 0;\
}                                                                                                                                 \
/* Rows of A, JC_TILE_ROWS at a time: rows[i * k + p * JC_TILE_ROWS + r] is row i + r. Where they are columns in memory, two      \
   at a time, so that no line is read twice. */                                                                                   \
static void jc_pack_rows_##suffix(int turned, ptrdiff_t m, ptrdiff_t k, const real *a, ptrdiff_t lda, real *rows) {               \
    for (ptrdiff_t i = 0; i < m; i += JC_TILE_ROWS) {                                                                             \
        real *dst = rows + i * k;                                                                                                 \
        ptrdiff_t both = 2 * JC_TILE_ROWS;                                                                                        \
        if (!turned) jc_turn_##suffix(a + i * lda, lda, m - i, k, JC_TILE_ROWS, dst, JC_TILE_ROWS);                               \
        else if (m - i >= both) {                                                                                                 \
            for (ptrdiff_t p = 0; p < k; ++p) {                                                                                   \
                memcpy(dst + p * JC_TILE_ROWS, a + p * lda + i, JC_TILE_ROWS * sizeof(real));                                     \
                memcpy(dst + (k + p) * JC_TILE_ROWS, a + p * lda + i + JC_TILE_ROWS, JC_TILE_ROWS * sizeof(real));                \
            }                                                                                                                     \
            i += JC_TILE_ROWS;                                                                                                    \
        } else jc_along_##suffix(a + i, lda, m - i, k, dst, JC_TILE_ROWS);                                                        \
    }                                                                                                                             \
}                                                                                                                                 \
/* Columns of B as wide as the tile. */                                                                                           \
static void jc_pack_panel_##suffix(int turned, ptrdiff_t n, ptrdiff_t k, const real *b, ptrdiff_t ldb, real *panel) {             \
    if (!turned) jc_along_##suffix(b, ldb, n, k, panel, jc_panel_##suffix);                                                       \
    else for (int v = 0; v < JC_TILE_VECTORS; ++v) {                                                                              \
        ptrdiff_t first = v * jc_width_##suffix, left = n > first ? n - first : 0;                                                \
        jc_turn_##suffix(left ? b + first * ldb : b, ldb, left, k, jc_width_##suffix, panel + first, jc_panel_##suffix);          \
    }                                                                                                                             \
}                                                                                                                                 \
/* One row of the next panel. */                                                                                                  \
JC_INLINED void jc_copy_row_##suffix(jc_ahead *ahead) {                                                                           \
    if (ahead->to == ahead->stop) return;                                                                                         \
    const char *from = (const char *)ahead->at;                                                                                   \
    __builtin_prefetch((const void *)(ahead->at + (uintptr_t)(JC_ROWS_AHEAD * ahead->step)), 0, 2);                               \
    __builtin_prefetch((const void *)(ahead->at + (uintptr_t)(JC_ROWS_AHEAD * ahead->step + 64)), 0, 2);                          \
    memcpy(ahead->to, from, jc_panel_##suffix * sizeof(real));                                                                    \
    ahead->to += jc_panel_##suffix * sizeof(real);                                                                                \
    ahead->at += (uintptr_t)ahead->step;                                                                                          \
}                                                                                                                                 \
/* One tile of C, of which `rows` and `columns` are there. Its loops stay loops: unrolled, their sums would be reassociated. */   \
static __attribute__((noinline)) void jc_tile_##suffix(ptrdiff_t k, const real *restrict a, const real *restrict b, real alpha,   \
        int adds, int streams, real *restrict c, ptrdiff_t down, ptrdiff_t right, ptrdiff_t rows, ptrdiff_t columns, jc_ahead *ahead) {\
    jc_lanes_##suffix sum[JC_TILE_ROWS][JC_TILE_VECTORS], total[JC_TILE_ROWS][JC_TILE_VECTORS];                                   \
    const ptrdiff_t group = ahead->group;                                                                                         \
    int full = rows >= JC_TILE_ROWS && columns >= jc_panel_##suffix && right == 1;                                                \
    JC_UNROLLED for (int i = 0; i < JC_TILE_ROWS; ++i) JC_UNROLLED for (int j = 0; j < JC_TILE_VECTORS; ++j)                      \
        sum[i][j] = (jc_lanes_##suffix){0};                                                                                       \
    if (full && !streams) for (int i = 0; i < JC_TILE_ROWS; ++i) {                                                                \
        __builtin_prefetch(c + i * down, 1);                                                                                      \
        __builtin_prefetch(c + i * down + jc_panel_##suffix - 1, 1);                                                              \
    }                                                                                                                             \
    JC_ROLLED for (ptrdiff_t chain, rest = k; rest > 0; rest -= chain) {                                                          \
        chain = rest < jc_chain_##suffix ? rest : jc_chain_##suffix;                                                              \
        JC_ROLLED for (ptrdiff_t left = chain; left > 0; left -= group) {                                                         \
            if (ahead->to) jc_copy_row_##suffix(ahead);                                                                           \
            else {                                                                                                                \
                __builtin_prefetch((const void *)ahead->at, 0, 2);                                                                \
                __builtin_prefetch((const void *)(ahead->at + 64), 0, 2);                                                         \
                ahead->at += (uintptr_t)ahead->step;                                                                              \
                if (++ahead->done == ahead->period) { ahead->done = 0; ahead->at += (uintptr_t)ahead->chunk; }                    \
            }                                                                                                                     \
            JC_ROLLED for (ptrdiff_t p = left < group ? left : group; p > 0; --p) {                                               \
                jc_lanes_##suffix line[JC_TILE_VECTORS];                                                                          \
                JC_UNROLLED for (int j = 0; j < JC_TILE_VECTORS; ++j)                                                             \
                    line[j] = *(const jc_line_##suffix *)(b + j * jc_width_##suffix);                                             \
                JC_UNROLLED for (int i = 0; i < JC_TILE_ROWS; ++i) JC_UNROLLED for (int j = 0; j < JC_TILE_VECTORS; ++j)          \
                    sum[i][j] += a[i] * line[j];                                                                                  \
                a += JC_TILE_ROWS;                                                                                                \
                b += jc_panel_##suffix;                                                                                           \
            }                                                                                                                     \
        }                                                                                                                         \
        if (chain == k) break;                                                                                                    \
        JC_UNROLLED for (int i = 0; i < JC_TILE_ROWS; ++i) JC_UNROLLED for (int j = 0; j < JC_TILE_VECTORS; ++j) {                \
            if (rest < k) sum[i][j] += total[i][j];                                                                               \
            total[i][j] = sum[i][j];                                                                                              \
            if (rest > chain) sum[i][j] = (jc_lanes_##suffix){0};                                                                 \
        }                                                                                                                         \
        __asm__ volatile("" : "+m"(total));                                                                                       \
    }                                                                                                                             \
    JC_UNROLLED for (int i = 0; i < JC_TILE_ROWS; ++i) JC_UNROLLED for (int j = 0; j < JC_TILE_VECTORS; ++j) sum[i][j] *= alpha;  \
    if (full && streams) {                                                                                                        \
        JC_UNROLLED for (int i = 0; i < JC_TILE_ROWS; ++i) JC_UNROLLED for (int j = 0; j < JC_TILE_VECTORS; ++j)                  \
            stream(c + i * down + j * jc_width_##suffix, sum[i][j]);                                                              \
    } else if (full && adds) {                                                                                                    \
        JC_UNROLLED for (int i = 0; i < JC_TILE_ROWS; ++i) JC_UNROLLED for (int j = 0; j < JC_TILE_VECTORS; ++j)                  \
            *(jc_line_##suffix *)(c + i * down + j * jc_width_##suffix) += sum[i][j];                                             \
    } else if (full) {                                                                                                            \
        JC_UNROLLED for (int i = 0; i < JC_TILE_ROWS; ++i) JC_UNROLLED for (int j = 0; j < JC_TILE_VECTORS; ++j)                  \
            *(jc_line_##suffix *)(c + i * down + j * jc_width_##suffix) = sum[i][j];                                              \
    } else {                                                                                                                      \
        real part[JC_TILE_ROWS * jc_panel_##suffix];                                                                              \
        memcpy(part, sum, sizeof part);                                                                                           \
        if (rows > JC_TILE_ROWS) rows = JC_TILE_ROWS;                                                                             \
        if (columns > jc_panel_##suffix) columns = jc_panel_##suffix;                                                             \
        for (ptrdiff_t i = 0; i < rows; ++i) for (ptrdiff_t j = 0; j < columns; ++j) {                                            \
            real *at = c + i * down + j * right;                                                                                  \
            *at = part[i * jc_panel_##suffix + j] + (adds ? *at : 0);                                                             \
        }                                                                                                                         \
    }                                                                                                                             \
}                                                                                                                                 \
/* op(A) op(B) for at most JC_PACKED_MOST rows, of which `packed` has room. */                                                    \
static void jc_rows_##suffix(int ta, int tb, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, real alpha, const real *a, ptrdiff_t lda,     \
        const real *b, ptrdiff_t ldb, int adds, int streams, real *c, ptrdiff_t down, ptrdiff_t right, real *packed) {            \
    real panels[2][JC_TILE_DEPTH / sizeof(real) * jc_panel_##suffix] __attribute__((aligned(64)));                                \
    int now = 0, ready = 0;                                                                                                       \
    const ptrdiff_t tiles = (m + JC_TILE_ROWS - 1) / JC_TILE_ROWS;                                                                \
    /* Streamed lines must be whole: the first panel ends where one does. */                                                      \
    const ptrdiff_t until = (ptrdiff_t)((uintptr_t)c / sizeof(real)) % (64 / (ptrdiff_t)sizeof(real));                            \
    const ptrdiff_t short_by = streams && until ? jc_panel_##suffix - (64 / (ptrdiff_t)sizeof(real) - until) : 0;                 \
    for (ptrdiff_t p = 0; p < k; p += jc_depth_##suffix) {                                                                        \
        const ptrdiff_t depth = k - p < jc_depth_##suffix ? k - p : jc_depth_##suffix;                                            \
        jc_pack_rows_##suffix(ta, m, depth, ta ? a + p * lda : a + p, lda, packed);                                               \
        for (ptrdiff_t j = 0, width; j < n; j += width) {                                                                         \
            width = jc_panel_##suffix - (j ? 0 : short_by);                                                                       \
            width = n - j < width ? n - j : width;                                                                                \
            real *panel = panels[now];                                                                                            \
            if (!ready) jc_pack_panel_##suffix(tb, width, depth, tb ? b + j * ldb + p : b + p * ldb + j, ldb, panel);             \
            const ptrdiff_t np = j + width < n ? p : p + depth, nj = j + width < n ? j + width : 0;                               \
            jc_ahead ahead = {(uintptr_t)b, 0, 0, 0, 0, tiles, NULL, NULL};                                                       \
            ready = !tb && np < k && n - nj >= jc_panel_##suffix && (nj || !short_by);                                            \
            now = !now;                                                                                                           \
            if (ready) {                                                                                                          \
                ahead.to = (char *)panels[now];                                                                                   \
                ahead.stop = (char *)(panels[now] + (k - np < jc_depth_##suffix ? k - np : jc_depth_##suffix) * jc_panel_##suffix);\
            }                                                                                                                     \
            if (np < k) {                                                                                                         \
                ahead.at += (uintptr_t)((tb ? nj * ldb + np : np * ldb + nj) * (ptrdiff_t)sizeof(real));                          \
                ahead.step = ldb * (ptrdiff_t)sizeof(real);                                                                       \
                ahead.period = tb ? jc_panel_##suffix : 0;                                                                        \
                ahead.chunk = tb ? 128 - jc_panel_##suffix * ahead.step : 0;                                                      \
            }                                                                                                                     \
            for (ptrdiff_t i = 0; i < m; i += JC_TILE_ROWS)                                                                       \
                jc_tile_##suffix(depth, packed + i * depth, panel, alpha, adds || p > 0, streams,                                 \
                                 c + i * down + j * right, down, right, m - i, width, &ahead);                                    \
            if (ready) while (ahead.to != ahead.stop) jc_copy_row_##suffix(&ahead);                                               \
        }                                                                                                                         \
    }                                                                                                                             \
}                                                                                                                                 \
static __attribute__((unused)) void jc_product_##suffix(int ta, int tb, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, real alpha, const real *a, ptrdiff_t lda,\
        const real *b, ptrdiff_t ldb, int adds, real *c, ptrdiff_t ldc, ptrdiff_t elements) {                                     \
    real own[JC_PACKED_ROWS * jc_depth_##suffix] __attribute__((aligned(64))), *packed = NULL;                                    \
    ptrdiff_t down = ldc, right = 1, most = JC_PACKED_ROWS;                                                                       \
    const ptrdiff_t across = (m + JC_TILE_ROWS - 1) / JC_TILE_ROWS * ((n + jc_panel_##suffix - 1) / jc_panel_##suffix);           \
    const ptrdiff_t along = (n + JC_TILE_ROWS - 1) / JC_TILE_ROWS * ((m + jc_panel_##suffix - 1) / jc_panel_##suffix);            \
    if (along * 2 <= across) {                                     /* few columns: the tile lies along the rows */                \
        const real *left = a;                                                                                                     \
        ptrdiff_t extent = m, ld = lda;                                                                                           \
        int turned = ta;                                                                                                          \
        a = b; b = left; m = n; n = extent; ta = !tb; tb = !turned; lda = ldb; ldb = ld; down = 1; right = ldc;                   \
    }                                                                                                                             \
    const int streams = JC_TILE_STREAMS && !adds && k <= jc_depth_##suffix && right == 1 && m >= JC_TILE_ROWS                     \
        && elements >= (ptrdiff_t)(JC_PRODUCT_STREAMED / sizeof(real)) && n >= 2 * jc_panel_##suffix                              \
        && (uintptr_t)c % sizeof(real) == 0 && ldc * (ptrdiff_t)sizeof(real) % 64 == 0;                                           \
    if (m > most) {                                                                                                               \
        packed = (real *)malloc(JC_PACKED_MOST * JC_TILE_DEPTH);                                                                  \
        if (packed) most = JC_PACKED_MOST;                                                                                        \
    }                                                                                                                             \
    const ptrdiff_t blocks = (m + most - 1) / most, each = ((m + blocks - 1) / blocks + JC_TILE_ROWS - 1) / JC_TILE_ROWS * JC_TILE_ROWS;\
    for (ptrdiff_t i = 0; i < m; i += each)                                                                                       \
        jc_rows_##suffix(ta, tb, m - i < each ? m - i : each, n, k, alpha, ta ? a + i : a + i * lda, lda, b, ldb, adds, streams,  \
                         c + i * down, down, right, packed ? packed : own);                                                       \
    free(packed);                                                                                                                 \
    if (streams) jc_stream_fence();                                                                                               \
}
#if JC_TILE_STREAMS
JC_PRODUCT_OF(float, int32_t, f32, JC_STREAM_F32)
JC_PRODUCT_OF(double, int64_t, f64, JC_STREAM_F64)
#else
#define JC_TILE_STORE(p, v) (void)(v)
JC_PRODUCT_OF(float, int32_t, f32, JC_TILE_STORE)
JC_PRODUCT_OF(double, int64_t, f64, JC_TILE_STORE)
#undef JC_TILE_STORE
#endif
#undef JC_PRODUCT_OF
#endif
