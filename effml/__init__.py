"""effml: small, fast models by construction, shipped as C that predicts exactly what Python predicts.

Submodules and the estimator-level functions are imported on first use, so ``import effml`` costs next to nothing.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("effml")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

_SUBMODULES = (
    "adapters",
    "bayes",
    "datasets",
    "deep",
    "discretization",
    "export",
    "forests",
    "itemsets",
    "kernels",
    "neural",
    "program",
    "report",
    "selection",
    "shapley",
)
_EXPORT_FUNCTIONS = ("check_export", "compile_c", "footprint", "lower", "quantize", "to_c")

# `from effml import *` must work without torch
__all__ = [*(name for name in _SUBMODULES if name != "deep"), *_EXPORT_FUNCTIONS, "__version__"]


def __getattr__(name):
    if name in _EXPORT_FUNCTIONS:
        value = getattr(import_module("effml.export"), name)
    elif name in _SUBMODULES:
        value = import_module(f"effml.{name}")
    else:
        raise AttributeError(f"module 'effml' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__():
    return sorted([*__all__, "deep"])
