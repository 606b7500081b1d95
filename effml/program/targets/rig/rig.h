/* What the rig needs of a machine: start-up calls main(), which streams rows in and results out. */
#ifndef EFFML_RIG_H
#define EFFML_RIG_H

#include <stdint.h>

#if defined(__AVR__) && defined(__MEMX)
#define RIG_FAR __memx
#else
#define RIG_FAR
#endif

int main(void);
void rig_open(void);                              /* counter and files */
int rig_read(void *to, uint32_t size);            /* the next bytes of the rows; 0 when there are no more */
void rig_write(const void *from, uint32_t size);  /* results */
uint32_t rig_counter(void);                       /* runs up, in units of the machine */
uint32_t rig_count_of(uint32_t difference);       /* instructions (cycles on AVR) behind a difference of two readings */
void rig_leave(uint32_t code);                    /* ends the emulator with this exit code */

/* The stack pointer of the function that this is expanded in: what lies below it is free. */
static inline __attribute__((always_inline)) volatile uint8_t *rig_stack_pointer(void)
{
    volatile uint8_t *top;
#if defined(__AVR__)
    __asm__ volatile("in %A0, __SP_L__\n in %B0, __SP_H__\n adiw %0, 1" : "=w"(top)); /* it points to a free byte */
#elif defined(__riscv)
    __asm__ volatile("mv %0, sp" : "=r"(top));
#else
    __asm__ volatile("mov %0, sp" : "=r"(top));
#endif
    return top;
}

#endif
