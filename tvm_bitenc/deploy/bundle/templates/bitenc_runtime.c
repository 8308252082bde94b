/* How a bundle runs its kernels, and the few functions of TVM's runtime that kernels call. */
#include "bitenc_runtime.h"

#include <string.h>

/* DLPack's tensor, as kernels read it. */
struct dl_tensor {
    void *data;
    int32_t device_type, device_id, ndim;
    uint8_t type_code, bits;
    uint16_t lanes;
    const int64_t *shape, *strides;
    uint64_t byte_offset;
};

enum { CPU = 1, DL_TENSOR = 7, ALIGNMENT = 64 };

/* Of the run in this thread. Kernels free blocks in the reverse order of their allocation. */
static _Thread_local unsigned char *workspace_next, *workspace_end;
static _Thread_local char message[256];

const char *bitenc_error(void) { return message; }

static void add_to_message(const char *text) {
    size_t used = strlen(message), length = strlen(text);
    if (length > sizeof message - 1 - used) length = sizeof message - 1 - used;
    memcpy(message + used, text, length);
    message[used + length] = '\0';
}

static int run_step(const struct bitenc_step *step, const struct bitenc_tensor *tensors,
                    void *const *bases) {
    struct dl_tensor views[BITENC_MAX_ARGUMENTS];
    struct bitenc_any arguments[BITENC_MAX_ARGUMENTS], result = {0, 0, {0}};
    for (size_t i = 0; i < step->count; ++i) {
        const struct bitenc_tensor *tensor = &tensors[step->tensors[i]];
        views[i] = (struct dl_tensor){
            .data = (unsigned char *)bases[tensor->base] + tensor->offset,
            .device_type = CPU,
            .ndim = tensor->ndim,
            .type_code = tensor->type_code,
            .bits = tensor->bits,
            .lanes = 1,
            .shape = tensor->shape,
        };
        arguments[i] = (struct bitenc_any){.type_index = DL_TENSOR, .value = {0}};
        arguments[i].value.v_ptr = &views[i];
    }
    if (step->kernel == NULL) {
        memcpy(views[1].data, views[0].data, tensors[step->tensors[1]].bytes);
        return 0;
    }
    return step->kernel(NULL, arguments, (int32_t)step->count, &result);
}

int bitenc_run(const struct bitenc_step *steps, size_t step_count,
               const struct bitenc_tensor *tensors, void *const *bases, void *workspace,
               size_t workspace_bytes) {
    message[0] = '\0';
    workspace_next = workspace;
    workspace_end = workspace_next + workspace_bytes;
    for (size_t i = 0; i < step_count; ++i) {
        if (run_step(&steps[i], tensors, bases) != 0) {
            add_to_message(" (in ");
            add_to_message(steps[i].name);
            add_to_message(")");
            return -1;
        }
    }
    return 0;
}

/* What kernels call. They reach all but the first through pointers that TVM's loader would set. */

void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int32_t count);
void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int32_t count) {
    message[0] = '\0';
    add_to_message(kind);
    add_to_message(": ");
    for (int32_t i = 0; i < count; ++i) add_to_message(parts[i]);
}

static void *alloc_workspace(int device_type, int device_id, uint64_t bytes, int code, int bits) {
    (void)device_type, (void)device_id, (void)code, (void)bits;
    uint64_t rounded = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (rounded > (uint64_t)(workspace_end - workspace_next)) return NULL;
    void *block = workspace_next;
    workspace_next += rounded;
    return block;
}

static int free_workspace(int device_type, int device_id, void *block) {
    (void)device_type, (void)device_id;
    workspace_next = block;
    return 0;
}

struct parallel_group {
    void *sync_handle;
    int32_t task_count;
};

typedef int parallel_task(int task, struct parallel_group *group, void *data);

/* A parallel loop runs as one task in the thread that called. */
static int parallel_launch(parallel_task *task, void *data, int count) {
    struct parallel_group group = {NULL, 1};
    (void)count;
    return task(0, &group, data);
}

extern void *(*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int);
extern int (*__TVMBackendFreeWorkspace)(int, int, void *);
extern int (*__TVMBackendParallelLaunch)(parallel_task *, void *, int);
void *(*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) = alloc_workspace;
int (*__TVMBackendFreeWorkspace)(int, int, void *) = free_workspace;
int (*__TVMBackendParallelLaunch)(parallel_task *, void *, int) = parallel_launch;
