"""Error of low-bit networks on letter and MNIST against the targets of the reference run.

    EFFML_DATA=/path/to/npz python benchmarks/neural_targets.py [letter] [mnist] [conv] [--seeds 3]

letter is the authors' discretised split; MNIST the official one, 28 x 28 pixels. Nothing is chosen by test error: every
run trains for a fixed number of epochs and is scored once, by its integer path. Each run leaves a small file in
benchmarks/results/neural_targets/, so that the script can be stopped and started again.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import effml
from effml.datasets import load_dataset
from effml.neural import QuantizedConvClassifier, QuantizedMLPClassifier

RESULTS = Path(__file__).resolve().parent / "results" / "neural_targets"
IMAGES = {"input_scaling": "common"}
LETTER = {"max_iter": 60, "hidden_layer_sizes": (1,)}  # the width follows from the budget
SIGNS = {"weight_bits": 1, "activation": "sign", "batch_norm": True, "hidden_layer_sizes": (512, 512)}
CONV = {"image_shape": (28, 28), "weight_bits": 2, "batch_norm": True, "max_iter": 15}

# group -> name -> data set, estimator, parameters, largest error in percent or None
RUNS = {
    "letter": {
        "7.6 kbit, ReLU, 4 bits": ("letter_mdl", QuantizedMLPClassifier, {**LETTER, "budget_bits": 7644}, 14.6),
        "15.3 kbit, ReLU, 4 bits": ("letter_mdl", QuantizedMLPClassifier, {**LETTER, "budget_bits": 15_288}, 11.8),
        "7.6 kbit, 4-bit activations": (
            "letter_mdl",
            QuantizedMLPClassifier,
            {**LETTER, "budget_bits": 7644, "activation_bits": 4},
            None,
        ),
        "15.3 kbit, 3 layers": (
            "letter_mdl",
            QuantizedMLPClassifier,
            {**LETTER, "budget_bits": 15_288, "hidden_layer_sizes": (1, 1)},
            None,
        ),
        "7.6 kbit, signs, 2 bits": (
            "letter_mdl",
            QuantizedMLPClassifier,
            {**LETTER, "budget_bits": 7644, "activation": "sign", "batch_norm": True, "weight_bits": 2},
            None,
        ),
    },
    "mnist": {
        "1 bit, signs, 2 x 512": ("mnist", QuantizedMLPClassifier, {**IMAGES, **SIGNS, "max_iter": 50}, 3.0),
        "2 bits, ReLU, 2 x 128": (
            "mnist",
            QuantizedMLPClassifier,
            {**IMAGES, "weight_bits": 2, "batch_norm": True, "hidden_layer_sizes": (128, 128), "max_iter": 30},
            None,
        ),
    },
    "conv": {
        "2 bits, 16 and 32 channels": ("mnist", QuantizedConvClassifier, {**CONV, "channels": (16, 32)}, 1.5),
        "2 bits, 8 and 16 channels": ("mnist", QuantizedConvClassifier, {**CONV, "channels": (8, 16)}, None),
    },
}


def run(group, name, seed):
    """Return the result of one run, from its file where there is one."""
    data_name, estimator, parameters, _ = RUNS[group][name]
    path = RESULTS / f"{group}-{name.replace(' ', '_').replace(',', '')}-{seed}.json"
    if path.is_file():
        return json.loads(path.read_text())
    data = load_dataset(data_name)
    start = time.perf_counter()
    model = estimator(**parameters, random_state=seed).fit(data.X_train, data.y_train)
    seconds = time.perf_counter() - start
    result = {
        "error": 100 * (1 - model.score(data.X_test, data.y_test)),
        "train_error": 100 * (1 - model.score(data.X_train[:10_000], data.y_train[:10_000])),
        "size_bits": model.size_bits_,
        "flash_bytes": effml.footprint(model, input_dtype="uint8").flash_bytes,
        "seconds": seconds,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(result))
    partial.replace(path)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("groups", nargs="*", default=["letter"], help=f"of {', '.join(RUNS)}; default letter")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.groups) - set(RUNS))
    if unknown:
        parser.error(f"groups {unknown} are unknown; accepted are {list(RUNS)}")
    console = Console(width=120)
    for group in arguments.groups:
        table = Table(
            "network", "bits", "flash, bytes", "train error, %", "test error, %", "target", "fit, s", title=group
        )
        for name, (*_, target) in RUNS[group].items():
            found = []
            for seed in range(arguments.seeds):
                found.append(run(group, name, seed))
                console.print(f"{group}, {name}, seed {seed}: {found[-1]['error']:.2f} % error")
            errors = np.array([result["error"] for result in found])
            table.add_row(
                name,
                f"{found[0]['size_bits']:,}",
                f"{found[0]['flash_bytes']:,}",
                f"{np.mean([result['train_error'] for result in found]):.2f}",
                f"{errors.mean():.2f} +- {errors.std():.2f}",
                "" if target is None else f"{target} {'met' if errors.mean() <= target else 'MISSED'}",
                f"{np.mean([result['seconds'] for result in found]):.0f}",
            )
        console.print(table)


if __name__ == "__main__":
    main()
