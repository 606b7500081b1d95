"""Data, families and grids of low_bit_comparison.py: what is compared, and how one model is fitted and priced.

All families see the same raw rows of bytes: letter and satimage as they are, usps rescaled to 0..255, mnist as rounded
means of 2x2 pixels. Each fits its own Fayyad-Irani bins or scaling to its training rows, so that bin edges and scales
are part of the price.
"""

import json
from dataclasses import dataclass, field
from functools import cache, cached_property

import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

import effml
from effml.bayes import NaiveBayesClassifier, TANClassifier
from effml.datasets import load_dataset
from effml.discretization import MDLPDiscretizer
from effml.neural import QuantizedConvClassifier, QuantizedMLPClassifier

DATA_SETS = ("letter", "satimage", "usps", "mnist14")
IMAGE_SHAPES = {"usps": (16, 16), "mnist14": (14, 14)}
FAMILIES = ("NB", "TAN", "FC ReLU", "FC sign", "FC ReLU one-hot", "FC sign one-hot", "CNN ReLU", "CNN sign")

BAYES_PARAMETERS = {"letter": 3822, "satimage": 2508, "usps": 8650, "mnist14": 25_800}  # the paper's unit of size
BUDGETS = (1, 2, 4, 8)  # bits for each of those
DENSE_BITS = {"FC ReLU": (1, 2, 4, 8), "FC sign": (1, 2, 4), "FC ReLU one-hot": (1, 2, 4), "FC sign one-hot": (1, 2)}
CHANNELS = ((2,), (4,), (8,), (16,), (2, 4), (4, 8), (8, 16), (16, 32))
FEW_BINS = 6
MARGINS = {"letter": (0.5, 1.0, 2.0, 5.0)}
WIDE_MARGINS = (3.0, 10.0, 20.0, 40.0)
STRUCTURE_MARGIN = {"letter": 5.0, "satimage": 20.0, "usps": 40.0, "mnist14": 40.0}
STRUCTURES = {
    None: ("cmi", "learned 0", "learned 0.0005", "learned 0.0015", "dropping 0.002", "dropping 0.01"),
    FEW_BINS: ("cmi", "learned 0.0005", "dropping 0.002"),
}

# Epochs of the search, of the chosen parameters on the same rows, and of the fit to all training rows
STRUCTURE_EPOCHS = {"letter": 22, "satimage": 58, "usps": 30, "mnist14": 20}
SEARCH, HELD_OUT, FINAL = range(3)
BAYES_EPOCHS = {"letter": (20, 40, 40), "satimage": (20, 40, 40), "usps": (20, 40, 40), "mnist14": (15, 20, 20)}
DENSE_EPOCHS = {"letter": (15, 40, 40), "satimage": (25, 60, 60), "usps": (15, 40, 40), "mnist14": (10, 30, 15)}
CONV_EPOCHS = {"usps": (5, 15, 15), "mnist14": (4, 12, 5)}
MNIST_SEARCH_ROWS = 20_000  # half of them to train on


# -- data -------------------------------------------------------------------------------------------------------------


@dataclass
class Problem:
    """One data set: training rows as bytes, split in two for the search, and the test rows.

    Attributes
    ----------
    X, X_test : uint8 arrays (n, d)
    y, y_test : arrays (n,)
    inner, held_out : int arrays
        Positions in X that the search trains on and that it chooses by.
    """

    name: str
    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    inner: np.ndarray
    held_out: np.ndarray
    _codes: dict = field(default_factory=dict)

    @classmethod
    def load(cls, name):
        data = load_dataset(name.removesuffix("14"))
        parts = [to_bytes(name, X) for X in (data.X_train, data.X_test)]
        rows = np.arange(len(parts[0]))
        share = 0.2
        if name == "mnist14":
            rows, share = np.sort(np.random.default_rng(0).permutation(rows)[:MNIST_SEARCH_ROWS]), 0.5
        labels = data.y_train[rows]
        inner, held_out = train_test_split(rows, test_size=share, random_state=0, stratify=labels)
        return cls(name, parts[0], data.y_train, parts[1], data.y_test, inner, held_out)

    @cached_property
    def n_classes(self):
        return len(np.unique(self.y))

    def search_codes(self, max_bins):
        """Return codes of the rows to search on and to choose by, and the number of codes of each feature."""
        if max_bins not in self._codes:
            binner = MDLPDiscretizer(max_bins=max_bins).fit(self.X[self.inner], self.y[self.inner])
            codes = [binner.transform(self.X[rows]) for rows in (self.inner, self.held_out)]
            self._codes[max_bins] = (*codes, np.asarray(binner.n_states_))
        return self._codes[max_bins]

    def error(self, model, X, y):
        return 100 * float(np.mean(model.predict(X) != y))


def to_bytes(name, X):
    """Return the rows as uint8."""
    if name == "usps":
        X = np.rint((X + 1) * 127.5)
    if name == "mnist14":
        X = np.rint(X.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4))).reshape(len(X), 196)
    return np.ascontiguousarray(X, dtype=np.uint8)


# -- cells: what gets a point on the plot -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One point: a family, the parameters that make its size, and what the search may change.

    Attributes
    ----------
    label : str
        Unique within data set and family.
    fixed : dict
    stages : list of lists of dict
        Changes that are tried one stage after the other, the best of each kept.
    """

    family: str
    label: str
    fixed: dict
    stages: list

    @property
    def file_name(self):
        return f"{self.family}-{self.label}".replace(" ", "_").replace(",", "")


def cells_of(name):
    """Return all cells of a data set."""
    found = [*bayes_cells(name), *dense_cells(name)]
    return found + conv_cells() if name in IMAGE_SHAPES else found


def bayes_cells(name):
    margins = [{"margin": margin} for margin in MARGINS.get(name, WIDE_MARGINS)]
    stages = [margins, [{"objective": "cross_entropy"}], [{"init": "float"}]]
    for bins in (None, FEW_BINS):
        text = "" if bins is None else f", {bins} bins"
        for bits in (1, 2, 3, 4, 8):
            fixed = {"n_bits": bits, "max_bins": bins}
            yield Cell("NB", f"{bits} bits{text}", fixed, stages)
            for structure in STRUCTURES[bins] if bits in (1, 2, 4) else ():
                yield Cell("TAN", f"{bits} bits{text}, {structure}", {**fixed, "structure": structure}, stages)


def dense_cells(name):
    for one_hot in (False, True):
        for activation, norms in (("relu", (False, True)), ("sign", (True,))):
            family = f"FC {'ReLU' if activation == 'relu' else 'sign'}{' one-hot' if one_hot else ''}"
            common = "common" if one_hot or name in IMAGE_SHAPES else "feature"
            stages = [[{"hidden_layers": n, "batch_norm": norm} for n in (1, 2) for norm in norms]]
            stages += [[{"learning_rate_init": 0.01}]]
            stages += [[{"input_scaling": "common"}]] if common == "feature" else []
            for bits in DENSE_BITS[family]:
                for budget in BUDGETS:
                    size = budget * BAYES_PARAMETERS[name]
                    fixed = {"weight_bits": bits, "budget_bits": size, "activation": activation}
                    label = f"{bits} bits, budget {size}"
                    yield Cell(family, label, {**fixed, "input_scaling": common, "one_hot": one_hot}, stages)


def conv_cells():
    stages = [[{"learning_rate_init": rate} for rate in (0.03, 0.01)]]
    return [
        Cell(
            "CNN ReLU" if activation == "relu" else "CNN sign",
            f"{bits} bits, {' and '.join(map(str, channels))} channels",
            {"weight_bits": bits, "channels": channels, "activation": activation, "batch_norm": True},
            stages,
        )
        for channels in CHANNELS
        for activation in ("relu", "sign")
        for bits in (1, 2, 4)
    ]


# -- one model --------------------------------------------------------------------------------------------------------


def validation_error(problem, family, parameters, structures, stage=SEARCH, seed=0):
    """Return the error % on held-out training rows of a model fitted to the others, for as long as the stage says."""
    y, y_held = problem.y[problem.inner], problem.y[problem.held_out]
    if family in ("NB", "TAN"):
        given = dict(parameters)
        codes, held, n_states = problem.search_codes(given.pop("max_bins"))
        model = bayes_model(problem.name, family, given, structures(parameters), stage, random_state=seed)
        model.set_params(discretizer=None, n_states=n_states)
        return problem.error(model.fit(codes, y), held, y_held)
    model = network(problem.name, family, parameters, stage, random_state=seed)
    model.fit(problem.X[problem.inner], y)
    return problem.error(model, problem.X[problem.held_out], y_held)


def fitted(problem, family, parameters, structures, seed):
    """Return a model of these parameters, fitted to all training rows."""
    if family in ("NB", "TAN"):
        model = bayes_model(problem.name, family, parameters, structures(parameters), FINAL, random_state=seed)
    else:
        model = network(problem.name, family, parameters, FINAL, random_state=seed)
    return model.fit(problem.X, problem.y)


def bayes_model(name, family, parameters, parents, stage, *, random_state):
    given = {"objective": "margin", "init": "random", "learning_rate_init": 0.03, **parameters}
    given |= {"max_iter": BAYES_EPOCHS[name][stage], "random_state": random_state}
    given.pop("structure", None)
    if family == "TAN":
        return TANClassifier(structure=parents, **given)
    return NaiveBayesClassifier(**given)


def network(name, family, parameters, stage, *, random_state):
    """Return an unfitted network, behind bins and one-hot columns where the family says so."""
    given = {**parameters, "random_state": random_state}
    epochs = (CONV_EPOCHS if family.startswith("CNN") else DENSE_EPOCHS)[name]
    given["max_iter"] = epochs[stage]
    if family.startswith("CNN"):
        return QuantizedConvClassifier(image_shape=IMAGE_SHAPES[name], **given)
    one_hot, layers = given.pop("one_hot"), given.pop("hidden_layers")
    model = QuantizedMLPClassifier(hidden_layer_sizes=(1,) * layers, **given)
    if not one_hot:
        return model
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False, dtype=np.float32)
    return make_pipeline(MDLPDiscretizer(), encoder, model)


def learn_parents(problem, structure, max_bins):
    """Return the parents of a TAN, learned on the rows that the search trains on, as a list."""
    codes, _, n_states = problem.search_codes(max_bins)
    given = {"structure": "cmi"}
    if structure != "cmi":
        kind, penalty = structure.split()
        given = {
            "structure": "learned",
            "size_penalty": float(penalty),
            "drop_features": kind == "dropping",
            "ordering": "cmi",
            "structure_max_iter": STRUCTURE_EPOCHS[problem.name],
            "objective": "hybrid",
            "margin": STRUCTURE_MARGIN[problem.name],
            "max_iter": 1,
        }
    model = TANClassifier(discretizer=None, n_states=n_states, random_state=0, **given)
    return model.fit(codes, problem.y[problem.inner]).parents_.tolist()


def price(problem, family, model):
    """Return the paper's size and operations of a fitted model, and what ships where it can be exported.

    The paper's operations: a naive Bayes or TAN adds a table entry for each class and feature it reads; a network
    counts multiply-accumulates, output biases and batch norm. A one-hot layer adds one row of weights for each raw
    feature, so that is what it is charged.
    """
    if family in ("NB", "TAN"):
        tables = np.count_nonzero(np.asarray(model.parents_) != -2)
        paper = {"size_bits": int(model.n_parameters_) * model.n_bits, "operations": problem.n_classes * int(tables)}
    elif family.endswith("one-hot"):
        net = model[-1]
        saved = (net.n_features_in_ - problem.X.shape[1]) * net.architecture_.hidden[0]
        return {"size_bits": int(net.size_bits_), "operations": int(net.n_operations_) - saved, "flash_bytes": None}
    else:
        paper = {"size_bits": int(model.size_bits_), "operations": int(model.n_operations_)}
    found = effml.footprint(model, input_dtype="uint8")
    shipped = {"flash_bytes": found.flash_bytes, "ram_bytes": found.ram_bytes, "c_operations": found.n_operations}
    return {**paper, **{key: int(value) for key, value in shipped.items()}}


def structure_reader(problem, folder):
    """Return a function from parameters to the parents of their structure, each learned once and kept as JSON."""

    @cache
    def parents(structure, max_bins):
        path = folder / f"{problem.name}-structure-{structure.replace(' ', '_')}-{max_bins}.json"
        if not path.is_file():
            path.write_text(json.dumps(learn_parents(problem, structure, max_bins)))
        return json.loads(path.read_text())

    def of(parameters):
        structure = parameters.get("structure")
        return None if structure is None else parents(structure, parameters["max_bins"])

    return of
