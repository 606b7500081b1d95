"""ProxConnect and its relatives against float, straight-through, torchao's PARQ and brevitas: 1 bit, ternary, 2 bits.

    EFFML_DATA=/path/to/npz python benchmarks/deep_prox.py [digits] [mnist] [fashion_mnist] [--seeds 3]

Networks of two hidden layers (64 units on digits, 128 else) with batch norm, 10,000 training rows of the larger sets,
the official test rows; Adam with a cosine schedule, the same epochs for all, no choice by test error. All weights are
quantised, levels for each output channel (brevitas: its own constant scale for the tensor at 1 bit and ternary). Each
run leaves a small file in benchmarks/results/deep_prox/.
"""

import argparse
import functools

import torch
from _deep import data, evaluate, fitted, mlp, remembered, show, spread

from effml.deep import ProxConnect, Recipe, train

EPOCHS = {"digits": 25, "mnist": 15, "fashion_mnist": 15}
BITS = (1, "ternary", 2)
OURS = {
    "straight-through": {"schedule": "hard"},
    "ProxConnect": {},
    "ProxConnect, linear": {"schedule": "linear"},
    "BinaryRelax": {"schedule": "relax"},
    "ProxQuant": {"schedule": "linear", "update_from": "quantised"},
    "reverse ProxConnect": {"gradient_at": "shadow", "update_from": "quantised"},
    "layer by layer": {"layer_by_layer": True},
    "after training": {"schedule": "identity"},
}


def torchao_run(parts, model, seed, epochs, bits):
    """torchao's own optimizer in the same loop, annealed over the same steps."""
    from torchao.prototype import parq

    steps = epochs * -(-len(parts[0][0]) // 64)

    def optimizer(parameters):
        parameters = list(parameters)
        weights = [p for p in parameters if p.dim() > 1]
        rest = [p for p in parameters if p.dim() == 1]
        quant_bits = 0 if bits == "ternary" else bits
        base = torch.optim.Adam([{"params": weights, "quant_bits": quant_bits}, {"params": rest}], 0.005)
        prox = parq.ProxPARQ(0, int(0.4 * steps))
        return parq.QuantOptimizer(base, parq.LSBQuantizer(), prox, quant_per_channel=True)

    state = train(
        model,
        parts[0],
        epochs=epochs,
        optimizer=optimizer,
        scheduler=lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o.base_optimizer, epochs),
        random_state=seed,
    )
    return {"accuracy": 100 * evaluate(state.model, parts[1])}


def brevitas_layer(bits):
    """brevitas' quantised linear layer."""
    import brevitas.nn as qnn
    from brevitas.quant import Int8WeightPerChannelFloat
    from brevitas.quant.binary import SignedBinaryWeightPerTensorConst
    from brevitas.quant.ternary import SignedTernaryWeightPerTensorConst

    if bits == 1:
        return functools.partial(qnn.QuantLinear, bias=True, weight_quant=SignedBinaryWeightPerTensorConst)
    if bits == "ternary":
        return functools.partial(qnn.QuantLinear, bias=True, weight_quant=SignedTernaryWeightPerTensorConst)
    return functools.partial(qnn.QuantLinear, bias=True, weight_quant=Int8WeightPerChannelFloat, weight_bit_width=bits)


def run(name, method, bits, seed):
    """The result of one training."""
    parts, epochs = data(name), EPOCHS[name]
    hidden = 64 if name == "digits" else 128
    build = functools.partial(mlp, parts[0][0][0].numel(), hidden, seed)
    if method == "torchao PARQ":
        return torchao_run(parts, build(), seed, epochs, bits)
    if method == "brevitas":
        result, model = fitted(build(brevitas_layer(bits)), parts, Recipe(fold_batch_norm=False), seed, epochs)
        return {"accuracy": 100 * evaluate(model, parts[1]), "seconds": result["seconds"]}
    techniques = [] if method == "float" else [ProxConnect(bits=bits, **OURS[method])]
    return fitted(build(), parts, Recipe(techniques), seed, epochs)[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(EPOCHS))
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    def accuracies(name, method, bits):
        key = f"{name}-{method}-{bits}".replace(" ", "_").replace(",", "")
        seeds = range(arguments.seeds)
        found = [remembered("deep_prox", f"{key}-{seed}", lambda s=seed: run(name, method, bits, s)) for seed in seeds]
        return spread([result["accuracy"] for result in found])

    for name in arguments.names:
        rows = [("float", accuracies(name, "float", 32), "", "")]
        for method in (*OURS, "torchao PARQ", "brevitas"):
            rows.append((method, *(accuracies(name, method, bits) for bits in BITS)))
            print(name, *rows[-1], flush=True)
        show(f"{name}: test accuracy, percent", ("method", "1 bit", "ternary", "2 bits"), rows)


if __name__ == "__main__":
    main()
