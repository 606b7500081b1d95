"""The bridge to torch: deep models lowered to Programs, in float32 or in integers, and recurrent nets in integers.

Needs torch: ``pip install "effml[torch]"``.
"""

from importlib import import_module

try:
    import torch  # noqa: F401
except ImportError as error:
    raise ImportError('effml.deep needs torch: pip install "effml[torch]"') from error

_MODULES = {
    "lowering": ("QuantizedModule", "lower_module", "quantize_module"),
    "lowering_bound": ("module_bound",),
    "recurrent": ("QuantLSTM",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_HOMES)


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module 'effml.deep' has no attribute {name!r}")
    value = getattr(import_module(f"effml.deep.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return __all__
