#include "semihosting.h"

#include <stdint.h>
#include <string.h>

enum { OPEN = 1, CLOSE = 2, WRITE0 = 4, WRITE = 5, READ = 6, GET_CMDLINE = 0x15, EXIT = 0x20 };
enum { READ_BINARY = 1, WRITE_BINARY = 5, EXITED = 0x20026, MAX_ARGUMENTS = 8 };

int main(int argc, char **argv);
void _start(void);

static int32_t call(uint32_t operation, const void *arguments) {
    register uint32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = arguments;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return (int32_t)r0;
}

static int with_file(const char *path, int mode, int operation, const void *data, size_t bytes) {
    int32_t file = call(OPEN, (const uintptr_t[]){(uintptr_t)path, mode, strlen(path)});
    if (file == -1) return -1;
    /* The result is how many bytes are left. */
    int32_t left = call(operation, (const uintptr_t[]){file, (uintptr_t)data, bytes});
    return call(CLOSE, (const uintptr_t[]){file}) | left ? -1 : 0;
}

int read_file(const char *path, void *data, size_t bytes) {
    return with_file(path, READ_BINARY, READ, data, bytes);
}

int write_file(const char *path, const void *data, size_t bytes) {
    return with_file(path, WRITE_BINARY, WRITE, data, bytes);
}

void print(const char *text) { call(WRITE0, text); }

void leave(int status) {
    for (;;) call(EXIT, (const uintptr_t[]){EXITED, status});
}

void _start(void) {
    static char line[256];
    char *argv[MAX_ARGUMENTS + 1] = {0};
    int argc = 0;
    call(GET_CMDLINE, (const uintptr_t[]){(uintptr_t)line, sizeof line});
    for (char *at = line; *at != '\0' && argc < MAX_ARGUMENTS;) {
        argv[argc++] = at;
        at += strcspn(at, " ");
        if (*at != '\0') *at++ = '\0';
    }
    leave(main(argc, argv));
}
