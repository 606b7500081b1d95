/* Files of the host by semihosting (Arm and RISC-V): rows.bin comes in, results.bin goes out. */
#include "rig.h"

enum { SYS_OPEN = 1, SYS_WRITE = 5, SYS_READ = 6, SYS_EXIT_EXTENDED = 0x20 };

static uintptr_t semihost(uintptr_t operation, const void *argument)
{
#if defined(__riscv)
    register uintptr_t a0 __asm__("a0") = operation;
    register const void *a1 __asm__("a1") = argument;
    __asm__ volatile(".option push\n .option norvc\n .balign 16\n slli x0, x0, 0x1f\n ebreak\n srai x0, x0, 7\n .option pop"
                     : "+r"(a0)
                     : "r"(a1)
                     : "memory");
    return a0;
#else
    register uintptr_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
#endif
}

static uintptr_t open_file(const char *name, uintptr_t length, uintptr_t mode)
{
    const uintptr_t block[3] = {(uintptr_t)name, mode, length};
    const uintptr_t handle = semihost(SYS_OPEN, block);
    if (handle == (uintptr_t)-1) {
        rig_leave(98u);
    }
    return handle;
}

static uintptr_t rows, results;
void rig_start_counter(void);

void rig_open(void)
{
    rows = open_file("rows.bin", 8, 1);
    results = open_file("results.bin", 11, 5);
    rig_start_counter();
}

int rig_read(void *to, uint32_t size)
{
    const uintptr_t block[3] = {rows, (uintptr_t)to, size};
    return semihost(SYS_READ, block) == 0; /* the number of bytes that did not come */
}

void rig_write(const void *from, uint32_t size)
{
    const uintptr_t block[3] = {results, (uintptr_t)from, size};
    if (semihost(SYS_WRITE, block) != 0) {
        rig_leave(97u);
    }
}

void rig_leave(uint32_t code)
{
    const uintptr_t block[2] = {0x20026u, code}; /* ADP_Stopped_ApplicationExit */
    semihost(SYS_EXIT_EXTENDED, block);
    for (;;) {
    }
}
