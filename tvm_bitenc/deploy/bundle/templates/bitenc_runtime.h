/* How a bundle runs its kernels. The same file in every bundle: link bitenc_runtime.o once. */
#ifndef BITENC_RUNTIME_H
#define BITENC_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

#define BITENC_MAX_ARGUMENTS 64

/* TVM's calling convention: an argument is a type index and a value of eight bytes. */
struct bitenc_any {
    int32_t type_index;
    uint32_t zero_padding;
    union {
        int64_t v_int64;
        void *v_ptr;
    } value;
};

typedef int bitenc_kernel(void *handle, const struct bitenc_any *arguments, int32_t count,
                          struct bitenc_any *result);

/* A tensor at an offset from one of the bases that a run is given. */
struct bitenc_tensor {
    uint8_t base, ndim, type_code, bits;
    size_t offset, bytes;
    const int64_t *shape;
};

/* A call of a kernel with tensors by index; kernel NULL copies the first to the second. */
struct bitenc_step {
    bitenc_kernel *kernel;
    const char *name;
    size_t count;
    const uint16_t *tensors;
};

/* Runs all steps. Returns 0, or -1 if a kernel failed; then bitenc_error() says why. */
int bitenc_run(const struct bitenc_step *steps, size_t step_count,
               const struct bitenc_tensor *tensors, void *const *bases, void *workspace,
               size_t workspace_bytes);

/* The last error of this thread. */
const char *bitenc_error(void);

#endif
