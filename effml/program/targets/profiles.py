"""The machines that a model can be built for: compiler, flags, emulator, and what is claimed of each.

A profile says how the generated C is compiled (``gcc -Os`` as a user would), which names the tools have, which emulator
runs it and what that counts. :func:`missing_tools` looks for them.
"""

import shutil
import subprocess
from dataclasses import dataclass
from functools import cache

__all__ = ["TARGETS", "Target", "find_target", "missing_tools"]


@dataclass(frozen=True)
class Target:
    """One machine.

    Attributes
    ----------
    name : str
    title : str
        In words.
    prefix : str
        What the names of its compiler and binutils begin with.
    machine_flags : tuple of str
        What chooses the processor.
    emulator : tuple of str
        Command before the ELF file.
    counts : str
        What the emulator counts: "instructions", or "cycles" where it knows them.
    rom_bytes, ram_bytes : int
        Memory of the emulated board.
    rig : tuple of str
        Sources of the rig beside main.c, and its linker script.
    link_flags : tuple of str
    packages : tuple of str
        Debian packages that hold the tools.
    code_ratio : float
        Code bytes beside those of x86-64, for estimates (``benchmarks/calibrate_code_bytes.py --targets``).
    stack_bytes : int
        Stack beside the buffers, for estimates; the median of the same programs.
    """

    name: str
    title: str
    prefix: str
    machine_flags: tuple[str, ...]
    emulator: tuple[str, ...]
    counts: str
    rom_bytes: int
    ram_bytes: int
    rig: tuple[str, ...]
    link_flags: tuple[str, ...]
    packages: tuple[str, ...]
    code_ratio: float
    stack_bytes: int

    @property
    def compiler(self) -> str:
        return f"{self.prefix}gcc"

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(name for name in self.rig if name.endswith(".c"))

    @property
    def linker_script(self) -> str | None:
        return next((name for name in self.rig if name.endswith(".ld")), None)


ARM = {
    "prefix": "arm-none-eabi-",
    "counts": "instructions",
    "rig": ("cortex_m.c", "semihost.c", "cortex_m.ld"),
    "link_flags": ("-nostartfiles", "--specs=nosys.specs"),
    "packages": ("gcc-arm-none-eabi", "libnewlib-arm-none-eabi", "qemu-system-arm"),
}
MPS2 = {"rom_bytes": 4 << 20, "ram_bytes": 4 << 20}


def _qemu(command, shift):
    quiet = "-nographic -monitor none -serial none -semihosting-config enable=on,target=native"
    return (*command.split(), *quiet.split(), "-icount", f"shift={shift}", "-kernel")


_PROFILES = (
    Target(
        name="cortex-m0",
        title="Arm Cortex-M0 (QEMU microbit: 256 KiB flash, 16 KiB RAM)",
        machine_flags=("-mcpu=cortex-m0", "-mthumb", "-DRIG_NRF51"),
        emulator=_qemu("qemu-system-arm -M microbit", 7),
        rom_bytes=256 << 10,
        ram_bytes=16 << 10,
        code_ratio=1.15,
        stack_bytes=64,
        **ARM,
    ),
    Target(
        name="cortex-m3",
        title="Arm Cortex-M3 (QEMU mps2-an385)",
        machine_flags=("-mcpu=cortex-m3", "-mthumb"),
        emulator=_qemu("qemu-system-arm -M mps2-an385", 7),
        code_ratio=0.98,
        stack_bytes=60,
        **MPS2,
        **ARM,
    ),
    Target(
        name="cortex-m4f",
        title="Arm Cortex-M4 with floating point in single precision (QEMU mps2-an386)",
        machine_flags=("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"),
        emulator=_qemu("qemu-system-arm -M mps2-an386", 7),
        code_ratio=0.95,
        stack_bytes=32,
        **MPS2,
        **ARM,
    ),
    Target(
        name="riscv32",
        title="RISC-V RV32IMC (QEMU virt)",
        prefix="riscv64-unknown-elf-",
        machine_flags=("-march=rv32imc", "-mabi=ilp32", "--specs=picolibc.specs"),
        emulator=_qemu("qemu-system-riscv32 -M virt -bios none", 0),
        counts="instructions",
        rom_bytes=4 << 20,
        ram_bytes=4 << 20,
        rig=("riscv32.c", "semihost.c", "riscv32.ld"),
        link_flags=("-nostartfiles",),
        packages=("gcc-riscv64-unknown-elf", "picolibc-riscv64-unknown-elf", "qemu-system-misc"),
        code_ratio=1.41,
        stack_bytes=58,
    ),
    Target(
        name="avr",
        title="AVR with 8 bits (simavr atmega1284p: 128 KiB flash, 16 KiB RAM)",
        prefix="avr-",
        machine_flags=("-mmcu=atmega1284p",),
        emulator=("simavr", "-m", "atmega1284p", "-f", "16000000"),
        counts="cycles",
        rom_bytes=128 << 10,
        ram_bytes=16 << 10,
        rig=("avr.c",),
        link_flags=(),
        packages=("gcc-avr", "avr-libc", "simavr"),
        code_ratio=1.69,
        stack_bytes=26,
    ),
)
TARGETS = {target.name: target for target in _PROFILES}


def find_target(name: str) -> Target:
    """Return a profile by name; ValueError names the known ones."""
    if name == "host":
        raise ValueError(f"target='host' has no emulator and no counts; microcontrollers are {list(TARGETS)}")
    if name not in TARGETS:
        raise ValueError(f"target={name!r} must be one of {['host', *TARGETS]}")
    return TARGETS[name]


def missing_tools(target: Target, *, emulator: bool = False) -> list[str]:
    """Return what a target lacks on this machine: compiler, size, C library, and the emulator if asked for."""
    needed = [target.compiler, f"{target.prefix}size", *([target.emulator[0]] if emulator else [])]
    missing = [command for command in needed if shutil.which(command) is None]
    if target.compiler not in missing and not _has_library(target):
        missing.append(f"the C library of {target.compiler}")
    return missing


@cache
def _has_library(target: Target) -> bool:
    """Return whether a target's compiler finds the headers of a C library, which some distributions pack apart."""
    command = [target.compiler, *target.machine_flags, "-E", "-x", "c", "-"]
    text = "#include <stdint.h>\n#include <string.h>\n"
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False).returncode == 0
