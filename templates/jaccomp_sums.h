/* The plan of a sum of products of two arrays: what is no plain matrix product, such as a convolution.

       t[m, n] = onto[m, n] + alpha Σ_k left[m, k] right[n, k]          m, n and k each stand for several loops, or for none

   `onto` is the target itself, another array such as a bias, or nothing.

   A plan describes the loops, slowest first: how many m, n and k have, how many windows there are; for each loop its extent and its
   strides in target, onto, left and right; for each window its side, the stride, step and extent of its axis, the place where all loops
   start, and how far each loop moves it. A window is an axis that is read at place / step, where that is a whole number of its extent;
   elsewhere nothing is there to add. Steps are undone first: loops are split into classes of which a window meets whole numbers only, or
   none. An operand of which the loops leave the array is then copied once, zeros around it; but if the other one is not finite, for 0 times
   infinity is nan, the loops are cut to the places inside. Sizes, and whether all is finite, decide what is done in which order.

   A window may also be moved by so many places that its lines have gaps: its loops are then split as if this were a step, so that what the
   loops of a class read lies number after number in the copy. */
#include <stdlib.h>
#define JC_RANK 24 /* 16 loops, and one for each window */
#define JC_WINDOWS 8
#define JC_DEPTH 192
#define JC_COPIED 262144
#if defined(__AVX512F__)
#define JC_ROWS 6
#define JC_VECTORS 4
#elif defined(__AVX__)
#define JC_ROWS 6
#define JC_VECTORS 2
#else
#define JC_ROWS 4
#define JC_VECTORS 2
#endif
#define JC_OUTLINE static __attribute__((noinline, noclone, unused, hot))
#define JC_ONCE static __attribute__((noinline, unused, cold)) /* for size, which compiles fast; what calls it is taken to be as seldom */

typedef struct {
    int side;
    ptrdiff_t stride, step, extent, start, moves[JC_RANK];
} jc_window;
typedef struct { /* the loops of m, n and k are first[0].., first[1].., first[2].. up to first[3]; side 0 is left, 1 is right */
    int first[4], windows;
    ptrdiff_t start[4], extent[JC_RANK], target[JC_RANK], onto[JC_RANK], side[2][JC_RANK]; /* start: of left, right, target and onto */
    jc_window window[JC_WINDOWS];
} jc_sum;

JC_OUTLINE void jc_read_plan(jc_sum *s, const ptrdiff_t *plan) {
    s->first[0] = 0;
    s->start[0] = s->start[1] = s->start[2] = s->start[3] = 0;
    for (int part = 0; part < 3; ++part) s->first[part + 1] = s->first[part] + (int)*plan++;
    s->windows = (int)*plan++;
    const int rank = s->first[3];
    for (int d = 0; d < rank; ++d, plan += 5) {
        s->extent[d] = plan[0];
        s->target[d] = plan[1];
        s->onto[d] = plan[2];
        s->side[0][d] = plan[3];
        s->side[1][d] = plan[4];
    }
    for (int w = 0; w < s->windows; ++w, plan += 5 + rank) { /* the one whose axis is closest in memory comes last */
        jc_window one = { .side = (int)plan[0], .stride = plan[1], .step = plan[2], .extent = plan[3], .start = plan[4] };
        int at = w;
        memcpy(one.moves, plan + 5, (size_t)rank * sizeof *plan);
        for (; at > 0 && s->window[at - 1].stride < one.stride; --at) s->window[at] = s->window[at - 1];
        s->window[at] = one;
    }
}

/* A window without step that stands at 0 reads its whole axis: one loop more of k. */
static inline void jc_unfold(jc_sum *s, int w) {
    const jc_window one = s->window[w];
    const int d = s->first[3]++;
    s->extent[d] = one.extent;
    s->target[d] = s->onto[d] = s->side[1 - one.side][d] = 0;
    s->side[one.side][d] = one.stride;
    s->window[w] = s->window[--s->windows];
    for (int other = 0; other < s->windows; ++other) s->window[other].moves[d] = 0;
}

/* How many iterations the loops of one part have. */
static inline ptrdiff_t jc_iterations(const jc_sum *s, int part) {
    ptrdiff_t count = 1;
    for (int d = s->first[part]; d < s->first[part + 1]; ++d) count *= s->extent[d] > 0 ? s->extent[d] : 0;
    return count;
}

/* The offsets of `count` iterations of one part, from the `at`-th, with these strides. */
JC_OUTLINE void jc_offsets(ptrdiff_t *to, const jc_sum *s, int part, const ptrdiff_t *strides, ptrdiff_t at, ptrdiff_t count) {
    const int low = s->first[part];
    int last = s->first[part + 1] - 1;
    ptrdiff_t index[JC_RANK], offset = 0;
    while (last >= low && s->extent[last] == 1) --last;
    for (int d = last; d >= low; --d) {
        index[d] = at % s->extent[d];
        at /= s->extent[d];
        offset += index[d] * strides[d];
    }
    for (ptrdiff_t i = 0; i < count;) {
        const ptrdiff_t step = last < low ? 0 : strides[last], run = last < low ? 1 : jc_min(s->extent[last] - index[last], count - i);
        for (ptrdiff_t j = 0; j < run; ++j) to[i + j] = offset + j * step;
        i += run;
        if (last < low) continue;
        index[last] += run - 1;
        offset += (run - 1) * step;
        for (int d = last; d >= low; --d) {
            offset += strides[d];
            if (++index[d] < s->extent[d]) break;
            offset -= index[d] * strides[d];
            index[d] = 0;
        }
    }
}

/* The least and the greatest place of a window. */
static inline void jc_reach(const jc_sum *s, const jc_window *w, ptrdiff_t *low, ptrdiff_t *high) {
    *low = *high = w->start;
    for (int d = 0; d < s->first[3]; ++d) *(w->moves[d] < 0 ? low : high) += w->moves[d] * (s->extent[d] - 1);
}

/* The loop d at from, from + every, .. alone. */
static inline void jc_restrict(jc_sum *s, int d, ptrdiff_t from, ptrdiff_t every, ptrdiff_t count) {
    for (int side = 0; side < 2; ++side) {
        s->start[side] += from * s->side[side][d];
        s->side[side][d] *= every;
    }
    s->start[2] += from * s->target[d];
    s->start[3] += from * s->onto[d];
    s->target[d] *= every;
    s->onto[d] *= every;
    for (int w = 0; w < s->windows; ++w) {
        s->window[w].start += from * s->window[w].moves[d];
        s->window[w].moves[d] *= every;
    }
    s->extent[d] = count;
}

/* The loop whose classes must be told apart before all move a window by whole steps; -1 if there is none. */
static inline int jc_unaligned(const jc_sum *s, const jc_window *w, ptrdiff_t step) {
    for (int d = 0; d < s->first[3]; ++d) if (s->extent[d] > 1 && w->moves[d] % step != 0) return d;
    return -1;
}

/* Does a window never meet a whole number? */
static inline int jc_is_beside(const jc_sum *s, const jc_window *w) { return jc_unaligned(s, w, w->step) < 0 && w->start % w->step != 0; }

/* How far the longest loop moves a window. */
static inline ptrdiff_t jc_pace(const jc_sum *s, const jc_window *w) {
    int longest = -1;
    for (int d = 0; d < s->first[3]; ++d)
        if (s->extent[d] > 1 && w->moves[d] != 0 && (longest < 0 || s->extent[d] > s->extent[longest])) longest = d;
    return longest < 0 ? 1 : w->moves[longest] < 0 ? -w->moves[longest] : w->moves[longest];
}

/* A window of which all loops meet one number of each `step` alone: as one of the axis that these make. */
static inline void jc_thin(jc_sum *s, jc_window *w, ptrdiff_t step) {
    const ptrdiff_t rest = w->start - jc_floordiv(w->start, step) * step;
    s->start[w->side] += rest * w->stride;
    w->stride *= step;
    w->extent = jc_max(0, jc_ceildiv(w->extent - rest, step));
    w->start = jc_floordiv(w->start, step);
    for (int d = 0; d < s->first[3]; ++d) w->moves[d] = s->extent[d] > 1 ? w->moves[d] / step : 0;
}

static inline void jc_negate(const jc_sum *s, jc_window *w) {
    w->step = -w->step;
    w->start = -w->start;
    for (int d = 0; d < s->first[3]; ++d) w->moves[d] = -w->moves[d];
}

/* A window of a side that the loops leave; -1 if there is none. */
static inline int jc_left(const jc_sum *s, int side) {
    for (int w = 0; w < s->windows; ++w) if (s->window[w].side == side) {
        ptrdiff_t low, high;
        jc_reach(s, &s->window[w], &low, &high);
        if (low < 0 || high >= s->window[w].extent) return w;
    }
    return -1;
}

/* What a copy of a side between zeros would hold. */
JC_OUTLINE double jc_copied(const jc_sum *s, int side) {
    double size = 1;
    for (int w = 0; w < s->windows; ++w) if (s->window[w].side == side) {
        ptrdiff_t low, high;
        jc_reach(s, &s->window[w], &low, &high);
        size *= (double)(high - low + 1);
    }
    for (int d = 0; d < s->first[3]; ++d) if (s->side[side][d] != 0) size *= (double)s->extent[d];
    return size;
}

/* The loop to halve where a copy would be too large: of k, if the target is smaller than the other side, which must otherwise be gone through
   twice; then one that moves no window, whose halves share nothing; then the longest. -1 if there is none. */
JC_ONCE int jc_halved(const jc_sum *s, int side) {
    const int sums = jc_iterations(s, side) < jc_iterations(s, 2);
    int found = -1, best = -1;
    for (int d = 0; d < s->first[3]; ++d) {
        int moves = 0;
        for (int w = 0; w < s->windows; ++w) moves |= s->window[w].side == side && s->window[w].moves[d] != 0;
        if (s->extent[d] < 2 || !(moves || s->side[side][d] != 0)) continue;
        const int score = 2 * ((d >= s->first[2]) == sums) + !moves;
        if (score < best || (score == best && s->extent[d] <= s->extent[found])) continue;
        found = d;
        best = score;
    }
    return found;
}

/* Of the loops that move a window, the shortest that does not stand still, and how many there are. */
static inline int jc_shortest(const jc_sum *s, const jc_window *w, int *moving) {
    int found = -1;
    *moving = 0;
    for (int d = 0; d < s->first[3]; ++d) if (s->extent[d] > 1 && w->moves[d] != 0) {
        ++*moving;
        if (found < 0 || s->extent[d] < s->extent[found]) found = d;
    }
    return found;
}

/* A walk over what a side reads: its loops, the fastest first, and the windows before them, from place to place of array and copy. */
typedef struct {
    int dims, empty;
    ptrdiff_t from, to, count[JC_RANK + JC_WINDOWS], read[JC_RANK + JC_WINDOWS], write[JC_RANK + JC_WINDOWS], index[JC_RANK + JC_WINDOWS];
} jc_walk;

/* One dimension more, or a longer last one if this one begins where that one ends. */
static inline void jc_add_dimension(jc_walk *walk, ptrdiff_t count, ptrdiff_t read, ptrdiff_t write) {
    const int last = walk->dims - 1;
    if (last >= 0 && read == walk->read[last] * walk->count[last] && write == walk->write[last] * walk->count[last]) {
        walk->count[last] *= count;
        walk->empty |= count <= 0;
        return;
    }
    walk->count[walk->dims] = count;
    walk->read[walk->dims] = read;
    walk->write[walk->dims] = write;
    walk->index[walk->dims++] = 0;
    walk->empty |= count <= 0;
}

/* The walk; `strides` are those of the copy's windows and then of its loops, and `origin` is where its first place lies. */
JC_OUTLINE void jc_start_walk(jc_walk *walk, const jc_sum *s, int side, ptrdiff_t *strides, ptrdiff_t *origin) {
    ptrdiff_t stride = 1;
    walk->dims = walk->empty = 0;
    walk->from = s->start[side];
    walk->to = *origin = 0;
    for (int w = s->windows - 1; w >= 0; --w) if (s->window[w].side == side) { /* the last one moves fastest */
        const jc_window *one = &s->window[w];
        ptrdiff_t low, high;
        jc_reach(s, one, &low, &high);
        const ptrdiff_t first = jc_max(0, low);
        jc_add_dimension(walk, jc_min(one->extent - 1, high) - first + 1, one->stride, stride);
        walk->from += first * one->stride;
        walk->to += (first - low) * stride;
        *origin += (one->start - low) * stride;
        strides[JC_RANK + w] = stride;
        stride *= high - low + 1;
    }
    for (int d = s->first[3] - 1; d >= 0; --d) if (s->side[side][d] != 0) {
        jc_add_dimension(walk, s->extent[d], s->side[side][d], stride);
        strides[d] = stride;
        stride *= s->extent[d];
    }
    if (walk->dims == 0) jc_add_dimension(walk, 1, 1, 1);
}

/* The same reads in the order of memory, for what does not mind where they are written. */
JC_OUTLINE void jc_in_order(jc_walk *walk) {
    jc_walk given = *walk;
    walk->dims = 0;
    while (given.dims > 0) {
        int next = 0;
        for (int d = 1; d < given.dims; ++d) if (given.read[d] < given.read[next]) next = d;
        jc_add_dimension(walk, given.count[next], given.read[next], given.read[next]);
        --given.dims;
        given.count[next] = given.count[given.dims];
        given.read[next] = given.read[given.dims];
    }
}

/* To the next run of the innermost dimension; 0 if there is none. */
static inline int jc_step(jc_walk *walk) {
    for (int d = 1; d < walk->dims; ++d) {
        walk->from += walk->read[d];
        walk->to += walk->write[d];
        if (++walk->index[d] < walk->count[d]) return 1;
        walk->from -= walk->index[d] * walk->read[d];
        walk->to -= walk->index[d] * walk->write[d];
        walk->index[d] = 0;
    }
    return 0;
}

/* The windows of a side as strides of its loops, from where the side starts. */
static inline void jc_fold(jc_sum *s, int side) {
    int kept = 0;
    for (int w = 0; w < s->windows; ++w) {
        if (s->window[w].side != side) { s->window[kept++] = s->window[w]; continue; }
        for (int d = 0; d < s->first[3]; ++d) s->side[side][d] += s->window[w].moves[d] * s->window[w].stride;
    }
    s->windows = kept;
}

/* What comes is added to the target, in which something is now. */
static inline void jc_onto_target(jc_sum *s) {
    s->start[3] = s->start[2];
    memcpy(s->onto, s->target, sizeof s->onto);
}
