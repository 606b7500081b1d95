/* Rows from flash (rows.bin; rows.h says how many bytes), results as lines of hexadecimal digits to the first UART, cycles
 * from two timers: timer 1 counts cycles modulo 2^16, timer 3 counts 1,024 cycles: together 2^26 cycles.
 *
 * Start-up is that of avr-libc. simavr prints what the UART sends, and ends when the processor sleeps for good.
 */
#include <avr/interrupt.h>
#include <avr/io.h>
#include <avr/sleep.h>
#include "rig.h"
#include "entry.h"
#include "rows.h"

extern const RIG_FAR uint8_t rig_rows[];
__asm__(".section .text.rows, \"ax\"\n rig_rows:\n .incbin \"rows.bin\"\n .balign 2\n .text");

static const RIG_FAR uint8_t *next = rig_rows; /* only ever stepped: an offset in avr-gcc has 16 bits with a sign */
static uint32_t left = RIG_ROWS_BYTES;

void rig_open(void)
{
    UCSR0B = (uint8_t)(1u << TXEN0);
    TCCR1A = TCCR3A = 0;
    TCCR1B = (uint8_t)(1u << CS10);
    TCCR3B = (uint8_t)(1u << CS32 | 1u << CS30);
    TCNT1 = TCNT3 = 0;
}

int rig_read(void *to, uint32_t size)
{
    uint8_t *byte = to;
    if (left < size) {
        return 0;
    }
    left -= size;
    while (size--) {
        *byte++ = *next++;
    }
    return 1;
}

static void send(uint8_t character)
{
    while (!(UCSR0A & 1u << UDRE0)) {
    }
    UDR0 = character;
}

void rig_write(const void *from, uint32_t size)
{
    const uint8_t *byte = from;
    while (size--) {
        send((uint8_t)"0123456789abcdef"[*byte >> 4]);
        send((uint8_t)"0123456789abcdef"[*byte++ & 15u]);
        if (size % 16u == 0u) {
            send('\n'); /* short lines, which simavr prints whole */
        }
    }
}

/* Cycles modulo 2^26: the fine counter, gone round as often as the coarse one says. */
uint32_t rig_counter(void)
{
    const uint16_t fine = TCNT1, coarse = TCNT3;
    return ((((uint32_t)coarse << 10) - fine + 0x8000u) & 0x03ff0000u) + fine;
}

uint32_t rig_count_of(uint32_t difference)
{
    return difference & 0x03ffffffu;
}

void rig_leave(uint32_t code)
{
    rig_write(&code, sizeof code);
    cli();
    sleep_enable();
    sleep_cpu();
    for (;;) {
    }
}
