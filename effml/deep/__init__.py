"""The bridge to torch: techniques that make deep models small, one class each, put together by recipes.

- ``plugs``, ``hooks``, ``state``: where a technique can act, and what it gets to see
- ``recipe``, ``training``, ``finishing``: techniques together on one model, a training loop, the model that ships
- ``estimators``: scikit-learn's face
- ``lowering``, ``recurrent``: modules as Programs, in float32 or in integers, LSTMs too
- ``metrics``, ``storage``: what a model costs; compact files
- ``prox``, ``smart_ternary``, ``foothill``, ...: techniques
- ``plan``, ``phases``: shrink and improve, with a ledger

Needs torch: ``pip install "effml[torch]"``.
"""

from importlib import import_module

try:
    import torch  # noqa: F401
except ImportError as error:
    raise ImportError('effml.deep needs torch: pip install "effml[torch]"') from error

_MODULES = {
    "channel_propagation": ("ChannelPropagation",),
    "distillation": ("Distillation",),
    "estimators": ("TorchClassifier", "TorchRegressor"),
    "finishing": ("fold_batch_norm", "recalibrate_batch_norm"),
    "foothill": ("Foothill", "FoothillBinarize", "FoothillLoss", "FoothillSign", "foothill_function"),
    "hooks": ("Hooks", "remove_hooks"),
    "lowering": ("QuantizedModule", "lower_module", "quantize_module"),
    "lowering_bound": ("module_bound",),
    "masks": ("KeepZeros",),
    "metrics": (
        "Cost",
        "cost",
        "latency",
        "macs",
        "nonzero",
        "params",
        "peak_activation_bytes",
        "size_bits",
    ),
    "ledger": ("Entry", "Ledger"),
    "phases": ("IntegerWeights", "LowRank", "MagnitudePrune", "Phase", "Train", "Width"),
    "plan": ("Plan",),
    "plugs": (
        "Analysis",
        "Callback",
        "GraphSurgery",
        "LossTerm",
        "ModuleSwap",
        "OptimizerWrapper",
        "Parametrization",
        "Selective",
        "Technique",
        "regroup",
    ),
    "prox": ("ProxConnect",),
    "quantized": ("QuantizedTorchClassifier", "QuantizedTorchRegressor"),
    "recipe": ("Recipe",),
    "recurrent": ("QuantLSTM",),
    "smart_ternary": ("SmartTernary",),
    "state": ("Batch", "TrainingState"),
    "storage": ("file_bytes", "load_compact", "save_compact"),
    "training": ("Batches", "evaluate", "train"),
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
