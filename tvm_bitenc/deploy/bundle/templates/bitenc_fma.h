/* a * b + c, rounded once, for CPUs without an instruction for it: C libraries of microcontrollers
 * round twice. */
#ifndef BITENC_FMA_H
#define BITENC_FMA_H

#if (defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M' && !defined(__ARM_FEATURE_FMA)) || \
    (defined(__riscv) && !defined(__riscv_flen))

#include <stdint.h>
#include <string.h>

float fmaf(float a, float b, float c);

/* The product is exact. The sum is rounded to odd, which keeps what the second rounding needs. */
__attribute__((weak)) float fmaf(float a, float b, float c) {
    double product = (double)a * b, sum = product + c;
    double part = sum - product, lost = (product - (sum - part)) + (c - part);
    uint64_t bits;
    memcpy(&bits, &sum, sizeof bits);
    if ((lost > 0 || lost < 0) && (bits & 1) == 0) bits += (lost > 0) == (sum > 0) ? 1 : -1;
    memcpy(&sum, &bits, sizeof bits);
    return (float)sum;
}

#endif
#endif
