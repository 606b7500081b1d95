"""Microcontrollers: how a Program is built, measured, run on an emulator and bounded for each of them."""

from effml.program.targets.firmware import DeviceRun, Entry, build, run_on_device, run_program
from effml.program.targets.profiles import TARGETS, Target, find_target, missing_tools

__all__ = [
    "TARGETS",
    "DeviceRun",
    "Entry",
    "Target",
    "build",
    "find_target",
    "missing_tools",
    "run_on_device",
    "run_program",
]
