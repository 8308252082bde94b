/* From reset to _start, on any Cortex-M: vectors, memory, floating-point unit. */
#include <stdint.h>
#include <string.h>

extern unsigned char stack_top, data_source, data_begin, data_end, __bss_start__, __bss_end__;
void reset(void);
void fault(void);
void _start(void);

/* What the first entries of the table of interrupts are: stack, reset, NMI, hard fault. */
__attribute__((section(".vectors"), used)) static const void *const vectors[] = {
    &stack_top, reset, fault, fault, fault, fault, fault,
};

void reset(void) {
#if defined(__ARM_FP)
    *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20; /* Access to coprocessors 10 and 11. */
    __asm__ volatile("dsb\n\tisb");
#endif
    memcpy(&data_begin, &data_source, (size_t)(&data_end - &data_begin));
    memset(&__bss_start__, 0, (size_t)(&__bss_end__ - &__bss_start__));
    _start();
}

void fault(void) {
    for (;;) __asm__ volatile("bkpt 0");
}

/* Compiled code refers to it for exceptions in C++, which it has none of. */
__attribute__((weak)) void __aeabi_unwind_cpp_pr0(void);
void __aeabi_unwind_cpp_pr0(void) {}
