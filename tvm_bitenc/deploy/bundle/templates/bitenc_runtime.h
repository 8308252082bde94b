/* Threads of parallel loops. The same file in every bundle: link bitenc_runtime.o once. */
#ifndef BITENC_RUNTIME_H
#define BITENC_RUNTIME_H

#ifdef __cplusplus
extern "C" {
#endif

/* Sets how many threads the parallel loops of runs in the calling thread use; 0 for every core.
 * Without OpenMP (compile with -fopenmp to have it) they run in the calling thread alone. */
void bitenc_use_threads(int count);

#ifdef __cplusplus
}
#endif

#endif
