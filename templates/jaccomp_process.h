/* What the modules of a process share: large blocks of memory, threads, how many CPUs there are, and one switch for BLAS's threads.

   The kernel clears a page when it is first touched, at 3.5 GB/s where pages have 4 KiB; malloc maps large blocks afresh for each
   result, and unmaps them when it is dropped. So blocks of JC_LARGE bytes and more are mapped here, aligned to huge pages where
   they hold some, and kept when they come back: the last that were used serve the next results, until more than `jc_most_idle`
   bytes lie idle and the oldest are unmapped. A block is either idle, in the lists below, or somebody's.

   The state is that of the first module that was loaded; the others find it by `jc_process`. Every field but the functions is read
   and written under the GIL, blocks under their own lock. */
#ifndef JC_PROCESS_INCLUDED
#define JC_PROCESS_INCLUDED
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/mman.h>
#include <unistd.h>

#define JC_LINE 64                               /* bytes of a cache line, and of the widest vector */
#define JC_PAGE 4096
#define JC_HUGE ((size_t)2 << 20)
#define JC_LARGE ((size_t)32 << 10)              /* smaller blocks are malloc's */
#define JC_IDLE "JACCOMP_IDLE_BYTES"             /* how many bytes may lie idle */
#define JC_IDLE_DEFAULT ((size_t)1 << 30)        /* or an eighth of the machine's memory, if that is less */

/* One block of a nest: iterations first..last-1. */
typedef int (*jc_task)(void *context, ptrdiff_t block, ptrdiff_t first, ptrdiff_t last);

typedef struct {
    void *(*take)(size_t bytes);
    void (*give)(void *data);
    size_t (*release)(void);
    int (*run)(jc_task task, void *context, ptrdiff_t total, ptrdiff_t span, ptrdiff_t threads, ptrdiff_t work);
    int cpus;                                    /* that this process may use; 0 before anyone asked */
    int running;                                 /* calls under way */
    int blas_calls, blas_before;                 /* those that multiply matrices, and the thread count to set back after them, or 0 */
} jc_shared;

/* ---------------------------------------------------------------------------------------------------------- blocks of memory */

/* Stands in the line before its data. `map` is what was mapped, or NULL if malloc gave it at `start`. */
typedef struct jc_block {
    struct jc_block *newer, *older, *next, *before;      /* of all idle blocks; of those of its size */
    void *start;
    size_t mapped, bytes;
    uint64_t idle;
} jc_block;

#define JC_BINS 512
static pthread_mutex_t jc_lock = PTHREAD_MUTEX_INITIALIZER;
static jc_block *jc_bins[JC_BINS], *jc_newest, *jc_oldest;
static size_t jc_idle_bytes, jc_most_idle;
static int jc_limited;

/* Sizes go in steps of an eighth of a power of two: 32, 36, .. 60, 64, 72, .. KiB. Round one up, and number it. */
static inline size_t jc_step_of(size_t bytes, int *bin) {
    int power = 8 * (int)sizeof(unsigned long long) - 1 - __builtin_clzll((unsigned long long)bytes);
    size_t step = (size_t)1 << (power - 3), rounded = (bytes + step - 1) & ~(step - 1);
    *bin = 8 * (power - 15) + (int)((rounded - ((size_t)1 << power)) / step);
    return rounded;
}

static inline jc_block *jc_block_of(void *data) { return (jc_block *)((char *)data - JC_LINE); }
static inline void *jc_data_of(jc_block *block) { return (char *)block + JC_LINE; }

static inline void jc_unlist(jc_block *one) {
    int bin;
    jc_step_of(one->bytes, &bin);
    if (one->before) one->before->next = one->next; else jc_bins[bin] = one->next;
    if (one->next) one->next->before = one->before;
    if (one->newer) one->newer->older = one->older; else jc_newest = one->older;
    if (one->older) one->older->newer = one->newer; else jc_oldest = one->newer;
    jc_idle_bytes -= one->bytes;
    one->idle = 0;
}

static inline void jc_list(jc_block *one) {
    int bin;
    jc_step_of(one->bytes, &bin);
    one->before = one->newer = NULL;
    one->next = jc_bins[bin];
    one->older = jc_newest;
    if (one->next) one->next->before = one;
    if (one->older) one->older->newer = one; else jc_oldest = one;
    jc_bins[bin] = jc_newest = one;
    jc_idle_bytes += one->bytes;
    one->idle = 1;
}

/* Unmap the oldest idle blocks until at most `most` bytes are idle; the bytes unmapped. */
static inline size_t jc_shrink(size_t most) {
    size_t freed = 0;
    for (;;) {
        pthread_mutex_lock(&jc_lock);
        jc_block *one = jc_idle_bytes > most ? jc_oldest : NULL;
        if (one) jc_unlist(one);
        pthread_mutex_unlock(&jc_lock);
        if (!one) return freed;
        freed += one->bytes;
        munmap(one->start, one->mapped);
    }
}

static inline size_t jc_release_idle(void) { return jc_shrink(0); }

static inline void jc_limit(void) {
    const char *text = getenv(JC_IDLE);
    char *end = NULL;
    unsigned long long most = text ? strtoull(text, &end, 10) : 0;
    if (!text || end == text || *end || *text == '-') {
        long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
        most = JC_IDLE_DEFAULT;
        if (pages > 0 && page > 0 && (unsigned long long)pages * (unsigned long long)page / 8 < most)
            most = (unsigned long long)pages * (unsigned long long)page / 8;
    }
    jc_most_idle = most < SIZE_MAX ? (size_t)most : SIZE_MAX;
    jc_limited = 1;
}

/* A new block: the data begins a page after the start of the mapping, at a huge page where it can hold one. */
static inline jc_block *jc_map(size_t bytes) {
    const size_t align = bytes >= JC_HUGE ? JC_HUGE : JC_PAGE, whole = bytes + JC_PAGE + (align - JC_PAGE);
    char *start = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) return NULL;
    char *data = (char *)(((uintptr_t)start + JC_PAGE + align - 1) & ~(uintptr_t)(align - 1)), *first = data - JC_PAGE, *stop = data + bytes;
    if (first > start) munmap(start, (size_t)(first - start));
    if (start + whole > stop) munmap(stop, (size_t)(start + whole - stop));
#ifdef MADV_HUGEPAGE
    if (align == JC_HUGE) madvise(data, bytes, MADV_HUGEPAGE);
#endif
    jc_block *one = jc_block_of(data);
    one->start = first;
    one->mapped = JC_PAGE + bytes;
    one->bytes = bytes;
    one->idle = 0;
    return one;
}

/* At least so many bytes, on a cache line of their own; NULL where there are no more. */
static inline void *jc_take_block(size_t bytes) {
    if (bytes < JC_LARGE) {
        void *memory = NULL;
        if (posix_memalign(&memory, JC_LINE, JC_LINE + bytes)) return NULL;
        jc_block *one = memory;
        one->start = NULL;
        one->bytes = bytes;
        return jc_data_of(one);
    }
    if (bytes > SIZE_MAX / 4) return NULL;
    int bin;
    const size_t rounded = jc_step_of(bytes, &bin);
    pthread_mutex_lock(&jc_lock);
    jc_block *one = jc_bins[bin] ? jc_bins[bin] : bin + 1 < JC_BINS ? jc_bins[bin + 1] : NULL;
    if (one) jc_unlist(one);
    pthread_mutex_unlock(&jc_lock);
    if (!one) one = jc_map(rounded);
    if (!one && jc_shrink(0)) one = jc_map(rounded);
    return one ? jc_data_of(one) : NULL;
}

static inline void jc_give_block(void *data) {
    if (!data) return;
    jc_block *one = jc_block_of(data);
    if (!one->start) { free(one); return; }
    pthread_mutex_lock(&jc_lock);
    if (one->idle) abort();                      /* given back twice */
    if (!jc_limited) jc_limit();
    const size_t most = jc_most_idle;
    const int keep = one->bytes <= most;
    if (keep) jc_list(one);
    const int over = jc_idle_bytes > most;
    pthread_mutex_unlock(&jc_lock);
    if (!keep) munmap(one->start, one->mapped);
    if (over) jc_shrink(most);
}

/* The bytes of n elements, to whole cache lines: buffers of one allocation follow each other. */
static inline size_t jc_bytes(ptrdiff_t n, size_t size) { return ((size_t)(n > 0 ? n : 1) * size + JC_LINE - 1) & ~(size_t)(JC_LINE - 1); }

/* -------------------------------------------------------------------------------------------------------------------- threads */

#define JC_GRAIN 400000                          /* the work that is worth a thread; see Function.work of the loop IR */
#define JC_BLOCK_WORK 65536                      /* the work that is worth a block */
#define JC_MOST_BLOCKS 64                        /* enough for any machine, few enough to cost nothing */
#define JC_SPIN 100000                           /* nanoseconds that a thread looks for more to do before it sleeps */
#define JC_WAKE 4000000                          /* the work that is worth waking a thread at once, and */
#define JC_BURST 1000000                         /* nanoseconds from one call to the next in which less is */

/* A nest runs in blocks of iterations, which its sizes alone decide: the same bits at any number of threads. */
static inline ptrdiff_t jc_blocks(ptrdiff_t total, ptrdiff_t work) {
    ptrdiff_t most = work / JC_BLOCK_WORK;
    if (most > JC_MOST_BLOCKS) most = JC_MOST_BLOCKS;
    if (most < 1) most = 1;
    return total < most ? total : most;
}

/* Work in progress: each of `workers` has a share of the blocks, and takes from the others' when its own is done. It stands on the
   stack of the call, which leaves when no helper is left in it. Helpers that come late find nothing to do, and nobody waits for them:
   a call takes no longer than on its own where the other CPUs are busy, and a child of fork, who has no helpers, does all of it. */
typedef struct { ptrdiff_t next, stop; char line[48]; } jc_share_of;
typedef struct jc_job {
    jc_task task;
    void *context;
    ptrdiff_t total, span;
    int workers, joined, inside, failed;         /* inside: helpers at work */
    struct jc_job *next;
    jc_share_of share[JC_MOST_BLOCKS] __attribute__((aligned(64)));
} jc_job;

typedef struct { pthread_t thread; int slept; } jc_helper;    /* the CPU that it last ran on, if it sleeps; else -1 */

static pthread_mutex_t jc_team_lock = PTHREAD_MUTEX_INITIALIZER;
static jc_helper jc_members[JC_MOST_BLOCKS];
static pthread_cond_t jc_team_more = PTHREAD_COND_INITIALIZER;
static jc_job *jc_jobs;                          /* those that want helpers */
static int jc_helpers, jc_asleep, jc_wanted;     /* threads; those of them that sleep; jobs in the list */
static long long jc_last;                        /* when there was work for several */

static inline void jc_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static inline void jc_work(jc_job *job, int own) {
    int failed = 0;
    for (int i = 0; i < job->workers; ++i) {
        jc_share_of *share = &job->share[(own + i) % job->workers];
        ptrdiff_t block;
        while (__atomic_load_n(&share->next, __ATOMIC_RELAXED) < share->stop
               && (block = __atomic_fetch_add(&share->next, 1, __ATOMIC_RELAXED)) < share->stop) {
            const ptrdiff_t first = block * job->span, last = first + job->span;
            failed |= job->task(job->context, block, first, last < job->total ? last : job->total);
        }
    }
    if (failed) __atomic_store_n(&job->failed, 1, __ATOMIC_RELAXED);
}

/* Leave a job's place in the list to those behind it. Under the lock. */
static inline void jc_leave(jc_job *job) {
    for (jc_job **at = &jc_jobs; *at; at = &(*at)->next)
        if (*at == job) {
            *at = job->next;
            __atomic_sub_fetch(&jc_wanted, 1, __ATOMIC_RELAXED);
            return;
        }
}

static inline long long jc_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (long long)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Linux may leave a thread that begins or wakes behind its caller on one CPU for milliseconds, while others are idle. So it is kept off
   the caller's CPU: when it begins, and when it last ran there. Under the lock. */
#if defined(__linux__) && defined(CPU_COUNT)
static inline int jc_here(void) { return sched_getcpu(); }
static inline int jc_others(cpu_set_t *set, int here) {
    if (sched_getaffinity(0, sizeof *set, set) || CPU_COUNT(set) < 2) return 0;
    CPU_CLR(here, set);
    return 1;
}
static inline void jc_begin_elsewhere(pthread_attr_t *attributes) {
    cpu_set_t others;
    if (jc_others(&others, jc_here())) pthread_attr_setaffinity_np(attributes, sizeof others, &others);
}
static inline void jc_wake_elsewhere(void) {
    cpu_set_t others;
    const int here = jc_here();
    for (int i = 0; i < jc_helpers; ++i)
        if (jc_members[i].slept == here && jc_others(&others, here))
            pthread_setaffinity_np(jc_members[i].thread, sizeof others, &others);
}
#else
static inline int jc_here(void) { return -1; }
static inline void jc_begin_elsewhere(pthread_attr_t *attributes) { (void)attributes; }
static inline void jc_wake_elsewhere(void) {}
#endif

static inline void *jc_help(void *self) {
    jc_helper *helper = self;
    const char *policy = getenv("OMP_WAIT_POLICY");
    const long long spin = policy && (policy[0] == 'p' || policy[0] == 'P') ? 0 : JC_SPIN;
    for (;;) {
        const long long until = spin ? jc_now() + spin : 0;
        while (spin && !__atomic_load_n(&jc_wanted, __ATOMIC_RELAXED) && jc_now() < until)
            for (int i = 0; i < 32 && !__atomic_load_n(&jc_wanted, __ATOMIC_RELAXED); ++i) jc_pause();
        pthread_mutex_lock(&jc_team_lock);
        if (!jc_jobs) {
            ++jc_asleep;
            helper->slept = jc_here();
            pthread_cond_wait(&jc_team_more, &jc_team_lock);
            helper->slept = -1;
            --jc_asleep;
        }
        jc_job *job = jc_jobs;
        if (!job) {                              /* it was done before this thread woke: look out for the next one */
            pthread_mutex_unlock(&jc_team_lock);
            continue;
        }
        const int own = ++job->joined;
        __atomic_add_fetch(&job->inside, 1, __ATOMIC_RELAXED);
        if (own + 1 >= job->workers) jc_leave(job);
        pthread_mutex_unlock(&jc_team_lock);
        jc_work(job, own);
        __atomic_sub_fetch(&job->inside, 1, __ATOMIC_RELEASE);
    }
    return NULL;
}

/* One more thread, which no signal interrupts: those are Python's to handle. Under the lock. */
static inline int jc_start_helper(void) {
    jc_helper *helper = &jc_members[jc_helpers];
    pthread_attr_t detached;
    sigset_t all, before;
    if (pthread_attr_init(&detached)) return -1;
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    jc_begin_elsewhere(&detached);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    helper->slept = -1;
    const int failed = pthread_create(&helper->thread, &detached, jc_help, helper);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&detached);
    jc_helpers += !failed;
    return failed;
}

/* How many threads share work: one where a second would take longer to begin than the first to end. Under the lock. */
static inline int jc_workers(ptrdiff_t threads, ptrdiff_t blocks, ptrdiff_t work) {
    ptrdiff_t most = work / JC_GRAIN;
    if (most > threads) most = threads;
    if (most > blocks) most = blocks;
    const long long now = jc_now(), before = jc_last;
    jc_last = now;
    return jc_asleep < jc_helpers || work >= JC_WAKE || now - before < JC_BURST ? (int)most : 1;
}

/* Not inlined and not specialised: the task is the same code, and gives the same bits, for one thread and for many. */
#if defined(__GNUC__) && !defined(__clang__)
__attribute__((noipa))
#else
__attribute__((noinline))
#endif
static int jc_run_blocks(jc_task task, void *context, ptrdiff_t total, ptrdiff_t span, ptrdiff_t threads, ptrdiff_t work) {
    int failed = 0, workers = 1;
    const ptrdiff_t blocks = total > 0 ? (total - 1) / span + 1 : 0;
    if (threads > 1 && blocks > 1 && work >= 2 * JC_GRAIN) {
        pthread_mutex_lock(&jc_team_lock);
        workers = jc_workers(threads, blocks < JC_MOST_BLOCKS ? blocks : JC_MOST_BLOCKS, work);
        if (workers < 2) pthread_mutex_unlock(&jc_team_lock);
    }
    if (workers < 2) {
        for (ptrdiff_t block = 0; block < blocks; ++block) {
            const ptrdiff_t first = block * span;
            failed |= task(context, block, first, total - first < span ? total : first + span);
        }
        return failed;
    }
    jc_job job;
    job.task = task;
    job.context = context;
    job.total = total;
    job.span = span;
    job.workers = workers;
    job.joined = job.inside = job.failed = 0;
    job.next = NULL;
    for (int i = 0; i < job.workers; ++i) {
        job.share[i].next = blocks * i / job.workers;
        job.share[i].stop = blocks * (i + 1) / job.workers;
    }
    while (jc_helpers < job.workers - 1 && !jc_start_helper()) {}
    jc_job **at = &jc_jobs;
    while (*at) at = &(*at)->next;
    *at = &job;
    __atomic_add_fetch(&jc_wanted, 1, __ATOMIC_RELAXED);
    if (jc_asleep) jc_wake_elsewhere();
    for (int i = 1; i < job.workers && i <= jc_asleep; ++i) pthread_cond_signal(&jc_team_more);
    pthread_mutex_unlock(&jc_team_lock);
    jc_work(&job, 0);
    pthread_mutex_lock(&jc_team_lock);
    jc_leave(&job);
    pthread_mutex_unlock(&jc_team_lock);
    for (int i = 0; __atomic_load_n(&job.inside, __ATOMIC_ACQUIRE); ++i)
        if (i < 2000) jc_pause();
        else sched_yield();
    return __atomic_load_n(&job.failed, __ATOMIC_RELAXED);
}

/* ------------------------------------------------------------------------------------------------------ the state of the process */

static jc_shared jc_own = {jc_take_block, jc_give_block, jc_release_idle, jc_run_blocks, 0, 0, 0, 0};
static jc_shared *jc_process = &jc_own;

static inline void *jc_alloc(size_t bytes) { return jc_process->take(bytes); }
static inline void jc_free(void *data) { if (data) jc_process->give(data); }

/* Threads that a nest of one block leaves to the products in it; see `jc_gemm`. */
static _Thread_local ptrdiff_t jc_spare = 1;

/* Run a nest's blocks of `span` iterations each; not 0 if one of them had no memory. */
static inline int jc_run_nest(jc_task task, void *context, ptrdiff_t total, ptrdiff_t span, ptrdiff_t threads, ptrdiff_t work) {
    jc_spare = total <= span ? threads : 1;
    const int failed = jc_process->run(task, context, total, span, threads, work);
    jc_spare = 1;
    return failed;
}

/* Scratch of one call of a block function: on its stack, if it is small. */
typedef struct { char at[16384]; } __attribute__((aligned(64))) jc_small;
static inline void *jc_borrow(jc_small *small, size_t bytes) { return bytes <= sizeof *small ? (void *)small : jc_alloc(bytes); }
static inline void jc_return(jc_small *small, void *data) { if (data != (void *)small) jc_free(data); }

/* The first number or two of a file; how many there are. */
static inline int jc_numbers(const char *folder, const char *path, const char *name, long long *first, long long *second) {
    char at[1024], text[64];
    if (snprintf(at, sizeof at, "%s%s/%s", folder, path, name) >= (int)sizeof at) return 0;
    FILE *file = fopen(at, "re");
    if (!file) return 0;
    int found = fgets(text, sizeof text, file) ? sscanf(text, "%lld %lld", first, second) : 0;
    fclose(file);
    return found > 0 ? found : 0;
}

/* CPUs that the quotas of this process's control groups and of those around them come to, of both versions; 0 without any.
   `groups` is /proc/self/cgroup, `root` where they are mounted. */
static inline int jc_quota(const char *groups, const char *root) {
    char line[1024], folder[1024];
    double least = 0;
    FILE *file = fopen(groups, "re");
    if (!file) return 0;
    while (fgets(line, sizeof line, file)) {     /* 0::/path   or   4:cpu,cpuacct:/path */
        line[strcspn(line, "\n")] = 0;
        char *names = strchr(line, ':'), *path = names ? strchr(names + 1, ':') : NULL;
        if (!path) continue;
        *path++ = 0;
        ++names;
        int cpu = 0;
        char list[256], *rest = NULL;
        snprintf(list, sizeof list, "%s", names);
        for (char *one = strtok_r(list, ",", &rest); one; one = strtok_r(NULL, ",", &rest)) cpu |= !strcmp(one, "cpu");
        if (*names && !cpu) continue;
        if (snprintf(folder, sizeof folder, *names ? "%s/%s" : "%s", root, names) >= (int)sizeof folder) continue;
        if (*names && access(folder, F_OK)) snprintf(folder, sizeof folder, "%s/cpu", root);
        for (;;) {                               /* up to the root, whose path is empty */
            size_t length = strlen(path);
            while (length && path[length - 1] == '/') path[--length] = 0;
            long long quota = 0, period = 0, none = 0;
            int limited = *names ? jc_numbers(folder, path, "cpu.cfs_quota_us", &quota, &none) >= 1
                                       && jc_numbers(folder, path, "cpu.cfs_period_us", &period, &none) >= 1
                                 : jc_numbers(folder, path, "cpu.max", &quota, &period) == 2;
            if (limited && quota > 0 && period > 0 && (least == 0 || (double)quota / (double)period < least))
                least = (double)quota / (double)period;
            if (!length) break;
            while (length && path[length - 1] != '/') path[--length] = 0;
        }
    }
    fclose(file);
    return least > 0 ? (int)(least < 1 ? 1 : least > 65536 ? 65536 : least + 0.999) : 0;
}

/* CPUs that this process may use, by its affinity and its quota; asked once. */
static inline int jc_cpus(void) {
    if (jc_process->cpus) return jc_process->cpus;
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
#if defined(__linux__) && defined(CPU_COUNT)
    cpu_set_t set;
    if (!sched_getaffinity(0, sizeof set, &set)) cpus = CPU_COUNT(&set);
#endif
    int quota = jc_quota("/proc/self/cgroup", "/sys/fs/cgroup");
    if (quota && quota < cpus) cpus = quota;
    return jc_process->cpus = cpus < 1 ? 1 : (int)cpus;
}

/* Around a fork: nothing is half done. In the child no other call is under way, and there are no helpers yet. */
static inline void jc_before_fork(void) { pthread_mutex_lock(&jc_team_lock); pthread_mutex_lock(&jc_lock); }
static inline void jc_after_fork(void) { pthread_mutex_unlock(&jc_lock); pthread_mutex_unlock(&jc_team_lock); }
static inline void jc_in_child(void) {
    pthread_mutex_init(&jc_lock, NULL);
    pthread_mutex_init(&jc_team_lock, NULL);
    pthread_cond_init(&jc_team_more, NULL);
    jc_jobs = NULL;
    jc_helpers = jc_asleep = jc_wanted = 0;
    jc_own.cpus = jc_own.running = jc_own.blas_calls = 0;
}
#endif
