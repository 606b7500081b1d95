"""Smart Ternary Quantization: accuracy against bits for several pulls towards binary, beside pure nets.

    EFFML_DATA=/path/to/npz python benchmarks/deep_ternary.py [mnist] [fashion_mnist] [digits] [--seeds 3]

The network, rows and protocol of deep_prox.py. "pure" is SmartTernary at its ends (no pull; all binary) and, as peers,
straight-through and brevitas. Bits are those of the weights alone, 1 or 2 each; "stored" is everything in the file's
exact forms, where a ternary layer with few zeros costs more than one with many.
"""

import argparse
import functools

import numpy as np
import torch
from _deep import data, evaluate, fitted, mlp, remembered, show, spread
from deep_prox import EPOCHS, brevitas_layer

from effml.deep import FoothillBinarize, ProxConnect, Recipe, SmartTernary

PULLS = (0.0, 0.003, 0.005, 0.006, 0.007, 0.008, 0.01, 0.02, 0.1, 1.0)


def run(name, method, seed):
    """The result of one training: accuracy, bits a weight, stored bits."""
    parts, epochs = data(name), EPOCHS[name]
    hidden = 64 if name == "digits" else 128
    build = functools.partial(mlp, parts[0][0][0].numel(), hidden, seed)
    kind, _, setting = method.partition(" ")
    if kind == "brevitas":
        bits = 1 if setting == "binary" else "ternary"
        _, model = fitted(build(brevitas_layer(bits)), parts, Recipe(fold_batch_norm=False), seed, epochs)
        return {"accuracy": 100 * evaluate(model, parts[1]), "per_weight": 1.0 if bits == 1 else 2.0, "bits": None}
    techniques = {
        "float": [],
        "straight-through": [ProxConnect(bits=1 if setting == "binary" else "ternary", schedule="hard")],
        "foothill": [FoothillBinarize()],
        "smart": [SmartTernary(binary_weight=float(setting) if kind == "smart" else 0.0)],
    }[kind]
    recipe = Recipe(techniques)
    result, model = fitted(build(), parts, recipe, seed, epochs)
    fixed = {"float": 32.0, "foothill": 1.0, "straight-through": 1.0 if setting == "binary" else 2.0}
    return result | {"per_weight": fixed[kind] if kind in fixed else _bits_a_weight(recipe, model)}


def _bits_a_weight(recipe, model):
    technique = recipe.techniques_["smartternary"]
    bits = technique.depths(model).bits.values()
    sizes = [technique.latent(model, site).numel() for site, _ in technique.installed(model)]
    return sum(b * n for b, n in zip(bits, sizes, strict=True)) / sum(sizes)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(EPOCHS))
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    methods = [
        "float",
        *(f"{kind} {pure}" for kind in ("straight-through", "brevitas") for pure in ("binary", "ternary")),
    ]
    methods += ["foothill binary", *(f"smart {pull}" for pull in PULLS)]
    for name in arguments.names:
        rows = []
        for method in methods:
            key = f"{name}-{method}".replace(" ", "_")
            found = [
                remembered("deep_ternary", f"{key}-{seed}", lambda s=seed, m=method, n=name: run(n, m, s))
                for seed in range(arguments.seeds)
            ]
            stored = [result["bits"] for result in found]
            rows.append(
                (
                    method,
                    f"{np.mean([result['per_weight'] for result in found]):.2f}",
                    "-" if stored[0] is None else f"{np.mean(stored) / 8:,.0f}",
                    spread([result["accuracy"] for result in found]),
                )
            )
            print(name, *rows[-1], flush=True)
        show(name, ("method", "bits a weight", "stored bytes", "test accuracy, percent"), rows)


if __name__ == "__main__":
    main()
