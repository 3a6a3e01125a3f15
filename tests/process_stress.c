/* Blocks and teams of threads under several callers at once; run with a sanitizer it must say nothing. Prints "fine". */
#include "jaccomp_process.h"

enum { CALLERS = 4, ROUNDS = 400, LENGTH = 40000 };
typedef struct { const int *in; int *out; ptrdiff_t failing; } values;

static int task(void *context, ptrdiff_t block, ptrdiff_t first, ptrdiff_t last) {
    values *v = context;
    for (ptrdiff_t i = first; i < last; ++i) v->out[i] = v->in[i] + 1;
    return block == v->failing;
}

static void *call(void *seed) {
    unsigned state = (unsigned)(uintptr_t)seed + 1;
    void *held[16] = {0};
    size_t bytes[16] = {0};
    for (int round = 0; round < ROUNDS; ++round) {
        state = state * 1664525u + 1013904223u;
        const int at = state >> 28;
        for (size_t i = 0; i < bytes[at]; i += 512)
            if (((unsigned char *)held[at])[i] != (unsigned char)(at + 1)) return "a block in use was handed out";
        jc_free(held[at]);
        bytes[at] = (size_t)1 << (8 + (state >> 8) % 15);
        bytes[at] += bytes[at] / 8 * ((state >> 4) % 8);
        held[at] = jc_alloc(bytes[at]);
        if (!held[at] || (uintptr_t)held[at] % JC_LINE) return "a block is not on a cache line";
        if (bytes[at] >= JC_HUGE && (uintptr_t)held[at] % JC_HUGE) return "a large block is not on a huge page";
        memset(held[at], at + 1, bytes[at]);
        if (round % 64 == 63) jc_process->release();

        int *in = jc_alloc(LENGTH * sizeof *in), *out = jc_alloc(LENGTH * sizeof *out);
        for (int i = 0; i < LENGTH; ++i) in[i] = (int)(state ^ (unsigned)i);
        memset(out, 0, LENGTH * sizeof *out);
        values v = {in, out, round % 8 ? -1 : 3};
        const ptrdiff_t threads = 1 + state % 6, span = 1 + (state >> 12) % LENGTH;
        const int failed = jc_run_nest(task, &v, LENGTH, span, threads, 100000000);
        if (failed != (v.failing >= 0 && v.failing * span < LENGTH)) return "a failure was lost, or made up";
        for (int i = 0; i < LENGTH; ++i)
            if (out[i] != in[i] + 1) return "an iteration was left out";
        jc_free(in);
        jc_free(out);
    }
    for (int at = 0; at < 16; ++at) jc_free(held[at]);
    return NULL;
}

int main(void) {
    pthread_t threads[CALLERS];
    jc_limit();
    for (uintptr_t i = 0; i < CALLERS; ++i)
        if (pthread_create(&threads[i], NULL, call, (void *)i)) return 1;
    const char *wrong = NULL;
    for (int i = 0; i < CALLERS; ++i) {
        void *said;
        pthread_join(threads[i], &said);
        if (said) wrong = said;
    }
    jc_process->release();
    if (jc_newest || jc_oldest || jc_idle_bytes || jc_jobs || jc_wanted) wrong = "something is left over";
    puts(wrong ? wrong : "fine");
    return wrong != NULL;
}
