"""Skipping with a reason where the tools of a target are not installed."""

import pytest

from effml.program.targets import find_target, missing_tools


def need(target: str, *, emulator: bool = True):
    """Skip the test unless the compiler (and the emulator) of a target are installed; return its profile."""
    profile = find_target(target)
    missing = missing_tools(profile, emulator=emulator)
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed (Debian: apt-get install {' '.join(profile.packages)})")
    return profile
