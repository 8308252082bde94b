/* The kernels of a program; `Program` writes the file that lists them. */
#include <tvm/ffi/c_api.h>

typedef int Kernel(void *self, const TVMFFIAny *arguments, int32_t count, TVMFFIAny *result);

extern Kernel *const kernels[];
