/* Calls the model on every row that comes in; what goes out is, for each: the result, instructions, stack bytes.
 *
 * entry.h, which is written beside the model, holds RIG_ROW (type of an input), RIG_N_FEATURES, RIG_RESULT (type of an
 * output), RIG_N_RESULTS and the macros RIG_CALL(x, y) and RIG_EMPTY(x, y), which calls the same way what only returns:
 * the difference is the function from its first instruction to the one before its return.
 */
#include "rig.h"
#include "entry.h"

#define PAINT 0xa5u
#define ROWS_PAINTED 50u /* rows whose stack is measured; the others say 0 */
#if defined(__AVR__)
#define RIG_RETURN 4u /* cycles of a return; 5 where the program counter has three bytes */
#else
#define RIG_RETURN 1u
#endif
#ifndef RIG_DEEPEST
#define RIG_DEEPEST 4096u /* bytes of stack that are looked at */
#endif

static RIG_ROW row[RIG_N_FEATURES];
static RIG_RESULT result[RIG_N_RESULTS];

__attribute__((noinline)) static uint32_t nothing(void)
{
    const uint32_t begin = rig_counter();
    RIG_EMPTY(row, result);
    return rig_counter() - begin;
}

__attribute__((noinline)) static uint32_t counted(void)
{
    const uint32_t begin = rig_counter();
    RIG_CALL(row, result);
    return rig_counter() - begin;
}

/* Bytes below the stack pointer that a call of the model changes. */
__attribute__((noinline)) static uint32_t stack_of_model(void)
{
    volatile uint8_t *const top = rig_stack_pointer(), *byte;
    for (byte = top - RIG_DEEPEST; byte < top; byte++) {
        *byte = PAINT;
    }
    RIG_CALL(row, result);
    for (byte = top - RIG_DEEPEST; byte < top && *byte == PAINT; byte++) {
    }
    return (uint32_t)(top - byte);
}

int main(void)
{
    uint32_t overhead, number;
    rig_open();
    overhead = nothing();
    for (number = 0; rig_read(row, sizeof row); number++) {
        uint32_t numbers[2];
        numbers[1] = number < ROWS_PAINTED ? stack_of_model() : 0u;
        numbers[0] = rig_count_of(counted() - overhead) + RIG_RETURN;
        rig_write(result, sizeof result);
        rig_write(numbers, sizeof numbers);
    }
    rig_leave(0u);
    return 0;
}
