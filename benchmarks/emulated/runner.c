/* Calls one TVM kernel on raw arrays, without TVM's runtime.

   runner FILE:CODE:BITS:SIZE,SIZE,... ...   each tensor: raw file, DLPack type, shape; the last
   one is the output and is written back. */
#include <dlpack/dlpack.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tvm/ffi/c_api.h>

enum { MAX_TENSORS = 32, MAX_DIMENSIONS = 12 };

extern int __tvm_ffi_main(void *self, const TVMFFIAny *arguments, int32_t count, TVMFFIAny *result);
/* Between these, instructions are counted. */
__attribute__((noinline)) void roi_begin(void) { __asm__ volatile("" ::: "memory"); }
__attribute__((noinline)) void roi_end(void) { __asm__ volatile("" ::: "memory"); }

/* What a kernel needs of TVM's runtime. */
void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int32_t count) {
  fprintf(stderr, "%s: ", kind);
  for (int32_t i = 0; i < count; i++) fputs(parts[i], stderr);
  fputc('\n', stderr);
}
static void *allocate(int type, int device, uint64_t size, int code, int bits) {
  return aligned_alloc(64, (size + 63) / 64 * 64);
}
static int release(int type, int device, void *memory) {
  free(memory);
  return 0;
}
void *(*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) = allocate;
int (*__TVMBackendFreeWorkspace)(int, int, void *) = release;

static char *file_of(const char *description) {
  size_t length = strcspn(description, ":");
  char *name = calloc(length + 1, 1);
  memcpy(name, description, length);
  return name;
}

static size_t parse(const char *description, DLTensor *tensor, int64_t *shape) {
  int code, bits, used;
  if (sscanf(strchr(description, ':'), ":%d:%d:%n", &code, &bits, &used) != 2) exit(2);
  const char *rest = strchr(description, ':') + used;
  size_t size = bits / 8;
  int n = 0;
  for (char *end; *rest; rest = *end ? end + 1 : end) size *= shape[n++] = strtoll(rest, &end, 10);
  *tensor = (DLTensor){.device = {kDLCPU, 0}, .ndim = n, .dtype = {code, bits, 1}, .shape = shape};
  tensor->data = aligned_alloc(64, (size + 64) / 64 * 64);
  return size;
}

int main(int count, char **descriptions) {
  static DLTensor tensors[MAX_TENSORS];
  static int64_t shapes[MAX_TENSORS][MAX_DIMENSIONS];
  static TVMFFIAny arguments[MAX_TENSORS];
  size_t size = 0;
  count -= 1;
  if (count < 1 || count > MAX_TENSORS) return 2;
  for (int i = 0; i < count; i++) {
    size = parse(descriptions[i + 1], &tensors[i], shapes[i]);
    arguments[i].type_index = kTVMFFIDLTensorPtr;
    arguments[i].v_ptr = &tensors[i];
    if (i + 1 == count) break;
    FILE *file = fopen(file_of(descriptions[i + 1]), "rb");
    if (!file || fread(tensors[i].data, 1, size, file) != size) return 3;
    fclose(file);
  }
  memset(tensors[count - 1].data, 0xA5, size); /* What a kernel doesn't write must be seen. */
  TVMFFIAny result = {0};
  roi_begin();
  int failed = __tvm_ffi_main(NULL, arguments, count, &result);
  roi_end();
  if (failed) return 4;
  FILE *file = fopen(file_of(descriptions[count]), "wb");
  return file && fwrite(tensors[count - 1].data, 1, size, file) == size && !fclose(file) ? 0 : 5;
}
