/* Vector table, reset handler and instruction counter of a Cortex-M without any start file of a C library.
 *
 * QEMU under -icount shift=7 takes 128 ns of its time for an instruction. The timer of the board (mps2: CMSDK APB timer
 * 0, 25 MHz, down; micro:bit: nRF51 TIMER0, 16 MHz, up) ticks more than twice in that time, so that rounding to the
 * nearest number of instructions is exact. 32 bits: good for more than 10^9 instructions.
 */
#include "rig.h"

#ifdef RIG_NRF51
#define NS_PER_16_TICKS 1000u
#define TIMER(offset) (*(volatile uint32_t *)(0x40008000u + (offset)))

void rig_start_counter(void)
{
    TIMER(0x508) = 3u; /* BITMODE: 32 bits */
    TIMER(0x510) = 0u; /* PRESCALER: 16 MHz */
    TIMER(0x00c) = 1u; /* CLEAR */
    TIMER(0x000) = 1u; /* START */
}

uint32_t rig_counter(void)
{
    TIMER(0x040) = 1u; /* CAPTURE[0] */
    return TIMER(0x540);
}
#else
#define NS_PER_16_TICKS 640u
#define TIMER ((volatile uint32_t *)0x40000000u) /* control, value, reload */

void rig_start_counter(void)
{
    TIMER[0] = 0u;
    TIMER[2] = TIMER[1] = 0xffffffffu;
    TIMER[0] = 1u;
}

uint32_t rig_counter(void)
{
    return 0xffffffffu - TIMER[1];
}
#endif

uint32_t rig_count_of(uint32_t difference)
{
    return (uint32_t)(((uint64_t)difference * NS_PER_16_TICKS + 1024u) / 2048u);
}

static void fault(void)
{
    rig_leave(99u); /* ends the run, instead of hanging */
}

extern uint32_t rig_stack_end, rig_data_image, rig_data_start, rig_data_end, rig_bss_start, rig_bss_end;

static void reset(void)
{
    const uint32_t *from = &rig_data_image;
    uint32_t *to;
#ifdef __ARM_FP
    *(volatile uint32_t *)0xe000ed88u |= 0xfu << 20; /* CPACR: the floating-point unit on */
    __asm__ volatile("dsb\n isb");
#endif
    for (to = &rig_data_start; to < &rig_data_end; to++) {
        *to = *from++;
    }
    for (to = &rig_bss_start; to < &rig_bss_end; to++) {
        *to = 0u;
    }
    main();
    rig_leave(96u); /* main leaves by itself */
}

__attribute__((section(".vectors"), used)) void (*const rig_vectors[16])(void) = {
    (void (*)(void))&rig_stack_end, reset, fault, fault, fault, fault, fault, 0, 0, 0, 0, fault, fault, 0, fault, fault};
