/* Calls TVM kernels on raw arrays, without TVM's runtime, as a plan says.

   runner PLAN, of which every line is one of
     tensor CODE BITS SIZE,SIZE,... FILE   DLPack type, shape (- of a scalar), and a raw file or -
                                           for none; they are numbered from 0
     call KERNEL COUNT NUMBER...           the kernel's position, and its tensors
     write NUMBER FILE */
#include "runner.h"

#include "bitenc_fma.h"

#include <dlpack/dlpack.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TENSORS = 8192, MAX_DIMENSIONS = 12, MAX_ARGUMENTS = 64 };

/* Between these, instructions are counted. */
__attribute__((noinline)) void roi_begin(void) { __asm__ volatile("" ::: "memory"); }
__attribute__((noinline)) void roi_end(void) { __asm__ volatile("" ::: "memory"); }

/* What a kernel needs of TVM's runtime. */
void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int32_t count) {
  fprintf(stderr, "%s: ", kind);
  for (int32_t i = 0; i < count; i++) fputs(parts[i], stderr);
  fputc('\n', stderr);
}
enum { ALIGNMENT = 64, MAX_STACK = 1 << 16 };
extern char stack_top __attribute__((weak));

/* Not every C library has aligned_alloc: what malloc gave lies in front. */
static void *aligned(size_t size) {
  char *whole = malloc(size + 2 * ALIGNMENT);
  if (!whole) return NULL;
  char *memory = whole + 2 * ALIGNMENT - (uintptr_t)whole % ALIGNMENT;
  /* On a board, malloc doesn't know where its memory ends. */
  if (&stack_top && memory + size + MAX_STACK > &stack_top) return NULL;
  memcpy(memory - sizeof whole, &whole, sizeof whole);
  return memory;
}
static void *allocate(int type, int device, uint64_t size, int code, int bits) {
  return aligned(size);
}
static int release(int type, int device, void *memory) {
  char *whole;
  memcpy(&whole, (char *)memory - sizeof whole, sizeof whole);
  free(whole);
  return 0;
}
void *(*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) = allocate;
int (*__TVMBackendFreeWorkspace)(int, int, void *) = release;

static DLTensor tensors[MAX_TENSORS];
static size_t sizes[MAX_TENSORS];

static void fail(const char *what, const char *name) {
  fprintf(stderr, "%s %s\n", what, name);
  exit(1);
}

static void read_tensor(FILE *plan, int number) {
  int code, bits, n = 0;
  char shape[256], name[256];
  if (number >= MAX_TENSORS || fscanf(plan, "%d %d %255s %255s", &code, &bits, shape, name) != 4)
    fail("tensor", "can't be read");
  DLTensor *tensor = &tensors[number];
  size_t size = bits / 8;
  *tensor = (DLTensor){.device = {kDLCPU, 0}, .dtype = {code, bits, 1}};
  tensor->shape = calloc(MAX_DIMENSIONS, sizeof *tensor->shape);
  for (char *at = shape; *at && *at != '-' && n < MAX_DIMENSIONS; at += *at == ',')
    size *= tensor->shape[n++] = strtoll(at, &at, 10);
  tensor->ndim = n;
  tensor->data = aligned(size);
  if (!tensor->data) fail("no memory for", name);
  sizes[number] = size;
  memset(tensor->data, 0xA5, size); /* What a kernel doesn't write must be seen. */
  if (!strcmp(name, "-")) return;
  FILE *file = fopen(name, "rb");
  if (!file || fread(tensor->data, 1, size, file) != size) fail("can't read", name);
  fclose(file);
}

static void call(FILE *plan) {
  TVMFFIAny arguments[MAX_ARGUMENTS] = {0}, result = {0};
  int kernel, count, number;
  if (fscanf(plan, "%d %d", &kernel, &count) != 2 || count > MAX_ARGUMENTS) fail("call", "?");
  for (int i = 0; i < count; i++) {
    if (fscanf(plan, "%d", &number) != 1) fail("call", "?");
    arguments[i].type_index = kTVMFFIDLTensorPtr;
    arguments[i].v_ptr = &tensors[number];
  }
  Kernel *function = kernels[kernel];
  roi_begin();
  int failed = function(NULL, arguments, count, &result);
  roi_end();
  if (failed) fail("kernel failed,", "as for want of memory");
}

static void write_tensor(FILE *plan) {
  int number;
  char name[256];
  if (fscanf(plan, "%d %255s", &number, name) != 2) fail("write", "?");
  FILE *file = fopen(name, "wb");
  if (!file || fwrite(tensors[number].data, 1, sizes[number], file) != sizes[number] ||
      fclose(file))
    fail("can't write", name);
}

int main(int count, char **names) {
  FILE *plan = count == 2 ? fopen(names[1], "r") : NULL;
  if (!plan) fail("runner", "PLAN");
  int read = 0;
  for (char word[16]; fscanf(plan, "%15s", word) == 1;) {
    if (!strcmp(word, "tensor")) read_tensor(plan, read++);
    if (!strcmp(word, "call")) call(plan);
    if (!strcmp(word, "write")) write_tensor(plan);
  }
  return 0;
}
