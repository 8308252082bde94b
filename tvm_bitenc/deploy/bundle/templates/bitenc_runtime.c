/* How parallel loops of a network run. */
#include "bitenc_runtime.h"

#include <stddef.h>
#include <stdint.h>

struct parallel_group {
    void *sync_handle;
    int32_t task_count;
};

typedef int parallel_task(int task, struct parallel_group *group, void *data);

#ifdef _OPENMP
#include <omp.h>

static _Thread_local int used_threads;

void bitenc_use_threads(int count) { used_threads = count; }

static int parallel_launch(parallel_task *task, void *data, int count) {
    int threads = used_threads > 0 ? used_threads : omp_get_num_procs(), failed = 0;
    if (count > 0 && count < threads) threads = count;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        struct parallel_group group = {NULL, omp_get_num_threads()};
        failed |= task(omp_get_thread_num(), &group, data) != 0;
    }
    return failed ? -1 : 0;
}
#else
void bitenc_use_threads(int count) { (void)count; }

static int parallel_launch(parallel_task *task, void *data, int count) {
    struct parallel_group group = {NULL, 1};
    (void)count;
    return task(0, &group, data);
}
#endif

/* Code of TVM launches through this pointer, which TVM's own loader sets to a pool of its own. */
extern int (*__TVMBackendParallelLaunch)(parallel_task *, void *, int);
int (*__TVMBackendParallelLaunch)(parallel_task *, void *, int) = parallel_launch;
