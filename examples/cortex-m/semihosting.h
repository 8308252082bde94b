/* Files and the end of a program by way of a debugger, or of QEMU: ARM's semihosting. */
#ifndef SEMIHOSTING_H
#define SEMIHOSTING_H

#include <stddef.h>

/* Fills `data` from a file, or writes it to one. Returns 0, or -1 if that can't be done in full. */
int read_file(const char *path, void *data, size_t bytes);
int write_file(const char *path, const void *data, size_t bytes);

void print(const char *text);

/* Ends the program. */
void leave(int status) __attribute__((noreturn));

#endif
