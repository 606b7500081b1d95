"""Random programs and random fitted models for the fuzzer, one a seed; names and labels that C could stumble over."""

import warnings

import numpy as np
from common.random_elementwise import elementwise_program
from common.random_itemsets import itemset_program
from common.random_kernels import kernel_program
from common.random_networks import float_images_program, network_program
from common.random_programs import classifier, forest_program, linear_program, tree_program
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from effml.bayes import NaiveBayesClassifier, TANClassifier
from effml.kernels import LocalizedMKLClassifier
from effml.neural import QuantizedConvClassifier, QuantizedMLPClassifier
from effml.program.buffers import INPUT_DTYPES

HOSTILE_TEXT = [
    'say "hi"',
    "it's",
    "*/ int main(void) { return 1; } /*",
    "/* never closed",
    "// rest of the line \\",
    "trigraphs ??/ ??' ??=",
    "back\\slash \\n \\x41 \\u0041",
    "line\nbreak\r\nand\ttab",
    "nul \0 bell \a escape \x1b[31m",
    "naïve 漢字 😀 \u202e",
    "\ud800 half a pair",
    "%s %n {} ${HOME} `id`",
    "#define int float",
    " leading and trailing ",
    "x" * 3000,
    "",
]


def random_program(rng):
    """Return a program of a random kind, size and input type."""
    dtype = str(rng.choice(list(INPUT_DTYPES)))
    n_columns, n_out = int(rng.integers(1, 40)), int(rng.integers(2, 30))
    kinds = ["table", "table", "tree", "forest", "linear", "kernels", "itemsets", "network", "images", "elementwise"]
    kind = rng.choice(kinds)
    if kind == "table":
        layout = str(rng.choice(["float", "byte", "dense", "swar"]))
        n_bits = 32 if layout == "float" else int(rng.integers(1, 5 if layout == "swar" else 9))
        return classifier(
            rng,
            dtype=dtype,
            n_columns=n_columns,
            n_out=n_out,
            n_bits=n_bits,
            layout=layout,
            parents=bool(rng.random() < 0.5),
            start=bool(rng.random() < 0.5),
            max_cuts=int(rng.choice([3, 30] if dtype == "uint8" else [3, 30, 300])),
        )
    if kind == "tree":
        return tree_program(rng, dtype=dtype, n_columns=n_columns, n_splits=int(rng.integers(0, 300)), n_out=n_out)
    if kind == "forest":
        sizes = rng.choice([0, 1, 7, 60, 300], size=rng.integers(1, 12)).tolist()
        adds, layout = str(rng.choice(["rows", "by_tree", "votes"])), str(rng.choice(["table", "code"]))
        return forest_program(rng, dtype=dtype, n_columns=n_columns, sizes=sizes, n_out=n_out, adds=adds, layout=layout)
    if kind == "linear":
        n_out = int(rng.choice([1, n_out]))
        return linear_program(rng, dtype=dtype, n_columns=n_columns, n_out=n_out, integer=bool(rng.random() < 0.5))
    if kind == "kernels":
        gate = str(rng.choice(["constant", "softmax", "sigmoid", "rbf"]))
        return kernel_program(
            rng, dtype=dtype, n_columns=n_columns, gate=gate, n_landmarks=int(rng.integers(1, 60)), n_out=n_out
        )
    if kind in ("network", "images", "elementwise"):
        return random_network(rng, kind, dtype=dtype, n_columns=n_columns, n_out=int(rng.choice([1, n_out])))
    n_linear, mask_bits = int(rng.integers(0, 4)), int(rng.choice([8, 11, 20]))
    return itemset_program(
        rng, dtype=dtype, n_columns=n_columns, n_linear=n_linear, mask_bits=mask_bits, max_cuts=30, n_out=n_out
    )


def random_network(rng, kind, *, dtype, n_columns, n_out):
    """Return a network of a random width, depth and number of bits."""
    n_bits, given = int(rng.integers(1, 9)), {"dtype": dtype, "n_out": n_out}
    if kind == "elementwise":
        n_entries, with_bias = int(rng.integers(1, 257)), bool(rng.random() < 0.5)
        return elementwise_program(
            rng, n_columns=n_columns, n_bits=n_bits, n_entries=n_entries, with_bias=with_bias, **given
        )
    image_shape = tuple(rng.integers(1, 9, size=3).tolist()) if kind == "images" else None
    if image_shape is not None and rng.random() < 0.3:
        return float_images_program(rng, image_shape=image_shape, **given)
    hidden = ["wide", "narrow", "shift", "i8", *([] if image_shape else ["u8", "u16", "u32"])]
    activations = rng.choice(hidden, size=rng.integers(0 if image_shape is None else 1, 3)).tolist()
    return network_program(
        rng, n_columns=n_columns, n_bits=n_bits, activations=activations, image_shape=image_shape, **given
    )


def random_data(rng):
    """Return rows and labels of a random shape, sometimes a degenerate one: one column, constant columns."""
    n_rows, n_columns = int(rng.integers(8, 200)), int(rng.choice([1, 2, 5, 20]))
    n_classes = int(rng.integers(2, 6))
    X = rng.normal(size=(n_rows, n_columns)) * 10.0 ** rng.integers(-3, 6, size=n_columns)
    if rng.random() < 0.5:
        X = np.round(X)
    X[:, rng.random(n_columns) < 0.2] = rng.normal()
    y = np.concatenate([np.arange(n_classes), rng.integers(0, n_classes, n_rows - n_classes)])
    return X, y


def random_model(rng):
    """Return a fitted estimator with hostile class labels, and the rows it was fitted on."""
    X, y = random_data(rng)
    labels = rng.permutation([text for text in HOSTILE_TEXT if "\0" not in text])[: y.max() + 1]
    depth = int(rng.integers(1, 9))
    estimators = [
        NaiveBayesClassifier(n_bits=int(rng.integers(1, 9)), max_bins=5),
        TANClassifier(n_bits=int(rng.integers(1, 5)), max_bins=5),
        TANClassifier(max_bins=4),
        DecisionTreeClassifier(max_depth=depth),
        DecisionTreeRegressor(max_depth=depth),
        RandomForestClassifier(5, max_depth=depth),
        RandomForestRegressor(5, max_depth=depth),
        GradientBoostingClassifier(n_estimators=3, max_depth=2),
        make_pipeline(StandardScaler(), LogisticRegression()),
        QuantizedMLPClassifier(hidden_layer_sizes=(int(rng.integers(1, 40)),), weight_bits=depth, max_iter=2),
        QuantizedConvClassifier(channels=(int(rng.integers(1, 9)),), weight_bits=depth, max_iter=2),
        make_pipeline(MinMaxScaler(), LocalizedMKLClassifier(n_landmarks=5, max_iter=2)),
    ]
    estimator = estimators[rng.integers(len(estimators))]
    if "random_state" in estimator.get_params():
        estimator.set_params(random_state=0)
    target = y.astype(float) if "Regressor" in type(estimator).__name__ else labels[y]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return estimator.fit(X, target), X
