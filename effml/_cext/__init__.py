"""Compiled loops, one module a family; see setup.py."""

from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

if not any(Path(__file__).parent.glob(f"*{suffix}") for suffix in EXTENSION_SUFFIXES):
    raise ImportError(
        f"the Cython extensions of effml are not built in {Path(__file__).parent}: this is a source tree; "
        "install it (pip install .) and run Python from another folder, or build it in place "
        "(python setup.py build_ext --inplace)"
    )
