/* Start of an RV32 machine (QEMU virt) without any start file of a C library.
 *
 * QEMU under -icount shift=0 takes 1 ns for an instruction, and its instret register reads that time: exact.
 */
#include "rig.h"

void rig_start_counter(void)
{
}

uint32_t rig_counter(void)
{
    uint32_t count;
    __asm__ volatile(".option push\n .option arch, +zicsr\n rdinstret %0\n .option pop" : "=r"(count) : : "memory");
    return count;
}

uint32_t rig_count_of(uint32_t difference)
{
    return difference;
}

__attribute__((used, aligned(4))) static void fault(void)
{
    rig_leave(99u);
}

extern uint32_t rig_bss_start, rig_bss_end;

__attribute__((used)) static void after_reset(void)
{
    uint32_t *to;
    for (to = &rig_bss_start; to < &rig_bss_end; to++) {
        *to = 0u;
    }
    main();
    rig_leave(96u); /* main leaves by itself */
}

__attribute__((naked, section(".start"), used)) void rig_reset(void)
{
    __asm__ volatile(
        ".option push\n .option norelax\n la gp, rig_global_pointer\n .option pop\n la sp, rig_stack_end\n"
        "la t0, fault\n .option push\n .option arch, +zicsr\n csrw mtvec, t0\n .option pop\n j after_reset");
}
