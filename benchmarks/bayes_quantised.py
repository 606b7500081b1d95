"""Test errors of naive Bayes and TAN in tables of 1 to 8 bits, trained under the quantiser or rounded after training.

    EFFML_DATA=/path/to/npz python benchmarks/bayes_quantised.py [--only letter] [--jobs 2] [--quick]

The authors' discretised files: letter and usps with their split, satimage with their five folds; mnist as 14x14 means
with Fayyad-Irani bins. Every cell of the tables chooses margin, objective, integer bits, structure (Chow-Liu or
learned), start, learning rate, sharpness, batch and epochs by validation on the training part alone (three folds for
naive Bayes on letter, else one fifth held out), one parameter after the other; the test rows are scored once, with
three seeds. Results are one JSON file a cell in `--results`, and only what is missing is computed.
"""

import argparse
import json
import time
from functools import lru_cache
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed, parallel_config
from sklearn.model_selection import StratifiedKFold

from effml._quantization import FixedPointFormat
from effml.bayes import NaiveBayesClassifier, TANClassifier
from effml.bayes.rounding import round_tables
from effml.bayes.tables import ScoreTable
from effml.datasets import load_dataset
from effml.discretization import MDLPDiscretizer

SETS = ("letter", "usps", "satimage", "mnist")
MODELS = {"NB": NaiveBayesClassifier, "TAN": TANClassifier}
SEEDS = (0, 1, 2)
INTEGER_BITS = (1, 2, 3, 4, 5)
MARGINS = {"letter": (0.3, 1.0, 2.0, 5.0, 10.0, 20.0)}  # nats; scores of many features are further apart
WIDE_MARGINS = (3.0, 10.0, 20.0, 40.0, 80.0)
STRUCTURE_MARGIN = {"letter": 5.0, "usps": 40.0, "satimage": 20.0, "mnist": 40.0}
SEARCH_ROWS = 10_000  # of mnist
FOLDS = {"satimage": (1, 2, 3, 4, 5)}
BASE = {"objective": "margin", "init": "random", "learning_rate_init": 0.03}
LIMITS = {
    ("letter", "NB"): {None: 13.9, 5: 14.2, 4: 14.7, 3: 16.7, 2: 23.0, 1: 37.0},
    ("letter", "TAN"): {None: 10.8, 4: 11.2, 2: 14.8},
    ("usps", "NB"): {None: 4.7},
    ("usps", "TAN"): {None: 3.0, 2: 3.2},
    ("satimage", "TAN"): {None: 11.9},
}
ROUNDING_NOISE = 0.2  # what 8 bits may cost naive Bayes on letter
TEST_NOISE = 0.4
FORMATS = ("contrast", "contrast, rounded", "fixed", "fixed, rounded")


# -- data and structures ----------------------------------------------------------------------------------------------


def split_of(name, fold):
    """Return X, y, X_test, y_test as codes."""
    if name != "mnist":
        data = load_dataset(f"{name}_mdl", split=fold)
        return data.X_train, data.y_train, data.X_test, data.y_test
    data = load_dataset("mnist")
    small = [X.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)).reshape(len(X), 196) for X in (data.X_train, data.X_test)]
    discretizer = MDLPDiscretizer(n_jobs=1).fit(small[0], data.y_train)
    return discretizer.transform(small[0]), data.y_train, discretizer.transform(small[1]), data.y_test


def validation_splits(name, model, y):
    """Return (training rows, validation rows) pairs, rows of the training part."""
    rows = np.arange(len(y))
    if name == "mnist":
        rows = np.random.default_rng(0).permutation(rows)[:SEARCH_ROWS]
    many = (name, model) == ("letter", "NB")
    folds = StratifiedKFold(3 if many else 5, shuffle=True, random_state=0).split(rows, y[rows])
    pairs = [(rows[train], rows[held_out]) for train, held_out in folds]
    return pairs if many else pairs[:1]


def structure_file(results, name, fold, part):
    return results / "structures" / f"{name}-{fold or 0}-{part}.json"


def learn_structure(results, name, fold, part, quick):
    """Learn the parents on the rows that search trains on (part "search"), or on all with a seed."""
    path = structure_file(results, name, fold, part)
    if path.exists():
        return
    X, y, *_ = split_of(name, fold)
    rows, seed = (validation_splits(name, "TAN", y)[0][0], 0) if part == "search" else (slice(None), part)
    epochs = 3 if quick else 40
    model = TANClassifier(
        structure="learned",
        structure_max_iter=epochs,
        objective="margin",
        margin=STRUCTURE_MARGIN[name],
        max_iter=1,
        random_state=seed,
        discretizer=None,
        n_states=X.max(axis=0).astype(int) + 1,
    )
    model.fit(X[rows], y[rows])
    write(path, model.parents_.tolist())


def structure_of(results, name, fold, part):
    part = "search" if name == "mnist" else part  # learning on 60,000 rows would take as long as all the rest
    return json.loads(structure_file(results, name, fold, part).read_text())


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1))


# -- one cell: search, then the test rows -----------------------------------------------------------------------------


class Problem:
    """One data set, fold and model: fits parameters to validation or to test rows."""

    def __init__(self, results, name, fold, model, quick):
        self.results, self.name, self.fold, self.model, self.quick = results, name, fold, model, quick
        self.X, self.y, self.X_test, self.y_test = split_of(name, fold)
        self.n_states = self.X.max(axis=0).astype(int) + 1
        self.splits = validation_splits(name, model, self.y)
        self.margins = MARGINS.get(name, WIDE_MARGINS)

    def fit(self, parameters, rows, part):
        """Fit to some rows; `part` as in `learn_structure`."""
        options = {**BASE, **parameters}
        seed = 0 if part == "search" else part
        if self.model == "TAN" and options.setdefault("structure", "learned") == "learned":
            options["structure"] = structure_of(self.results, self.name, self.fold, part)
        if self.quick:
            options["max_iter"] = 3
        elif self.name == "mnist" and part != "search":
            options["max_iter"] = 20
        estimator = MODELS[self.model](discretizer=None, n_states=self.n_states, random_state=seed, n_jobs=1, **options)
        return estimator.fit(self.X[rows], self.y[rows])

    def validation_error(self, parameters):
        errors = []
        for train, held_out in self.splits:
            model = self.fit(parameters, train, "search")
            errors.append(100 * np.mean(model.predict(self.X[held_out]) != self.y[held_out]))
        return float(np.mean(errors))

    def test_errors(self, parameters):
        models = (self.fit(parameters, slice(None), seed) for seed in SEEDS)
        return [100 * float(np.mean(model.predict(self.X_test) != self.y_test)) for model in models]

    def search(self, number_format):
        """Return (parameters, validation error) by changing one parameter after the other."""
        first = {"margin": self.margins[1 if self.name == "letter" else 2], **number_format}
        stages = [[{"margin": margin} for margin in self.margins]]
        if "integer_bits" in number_format:
            first |= {"objective": "hybrid"}
            stages = [[{"integer_bits": bits} for bits in INTEGER_BITS], *stages]
            stages += [[{"objective": "margin"}, {"margin_weight": 20.0}]]
        elif number_format:
            stages += [[{"objective": "cross_entropy"}]]
        else:
            stages += [[{"objective": "hybrid"}, {"objective": "cross_entropy"}]]
        stages += [[{"init": "likelihood"}, *([{"init": "float"}] if number_format else [])]]
        stages += [[{"structure": "cmi"}]] if self.model == "TAN" else []
        if self.name != "satimage" and "integer_bits" not in number_format:  # these two search enough already
            stages += [[{"learning_rate_init": 0.01}, {"learning_rate_init": 0.1}], [{"margin_sharpness": 3.0}]]
        stages += [lambda best: [{"margin": best["margin"] * factor} for factor in (0.6, 1.6)]]
        if self.name == "letter" and "integer_bits" not in number_format:
            stages += [[{"batch_size": 30}], [{"max_iter": 100}]]
        found, best = {}, first
        error = self.validation_error(first)
        for stage in stages[:1] if self.quick else stages:
            trials = [best | change for change in (stage(best) if callable(stage) else stage)]
            for trial in trials:
                key = json.dumps(trial, sort_keys=True)
                found[key] = found[key] if key in found else self.validation_error(trial)
                if found[key] < error:
                    best, error = trial, found[key]
        return best, error


def rounded_error(model, problem, number_format, n_bits, X, y, rows):
    """Round a float model on its training rows; return its error on X, y."""
    codes, labels = problem.X[rows], np.searchsorted(model.classes_, problem.y[rows])
    options = {"parents": model.parents_, "n_states": model.n_states_, "codes": codes, "y": labels, "weights": None}
    rounded = round_tables(model.class_log_prior_, model.log_tables_, number_format, n_bits, **options)
    table = ScoreTable.from_codes(rounded.prior_codes, rounded.codes, model.parents_, model.n_states_)
    return 100 * float(np.mean(model.classes_[table.argmax(np.ascontiguousarray(X))] != y))


def rounding_formats(kind, n_bits):
    return ["contrast"] if kind == "contrast" else [FixedPointFormat(i, n_bits - i) for i in INTEGER_BITS]


def round_cells(problem, all_bits):
    """Return {(bits, kind): result} of models trained in float and rounded; the margin is chosen a cell."""
    margins = problem.margins[:1] if problem.quick else problem.margins
    trials = [{"margin": margin, "objective": o} for margin in margins for o in ("margin", "hybrid")]
    best = {}
    for trial in trials:
        models = [(problem.fit(trial, train, "search"), train, held_out) for train, held_out in problem.splits]
        for kind in ("contrast", "fixed"):
            for bits in all_bits:
                for form in rounding_formats(kind, bits):
                    error = np.mean(
                        [
                            rounded_error(model, problem, form, bits, problem.X[held_out], problem.y[held_out], train)
                            for model, train, held_out in models
                        ]
                    )
                    if (bits, kind) not in best or error < best[bits, kind][0]:
                        best[bits, kind] = (float(error), trial, form)
    fitted = lru_cache(maxsize=None)(lambda trial, seed: problem.fit(dict(trial), slice(None), seed))
    cells = {}
    for (bits, kind), (error, trial, form) in best.items():
        errors = [
            rounded_error(
                fitted(tuple(trial.items()), seed), problem, form, bits, problem.X_test, problem.y_test, slice(None)
            )
            for seed in SEEDS
        ]
        chosen = trial | ({} if kind == "contrast" else {"integer_bits": form.integer_bits})
        cells[bits, kind] = {"validation": error, "chosen": chosen, "test": errors}
    return cells


# -- cells on disk ----------------------------------------------------------------------------------------------------


def cell_file(results, name, model, bits, kind):
    return results / f"{name}-{model}-{bits or 'float'}-{kind.replace(', ', '-')}.json"


def bits_of(name):
    return (1, 2, 4, 8) if name == "mnist" else (1, 2, 3, 4, 5, 8)


def run_trained(results, name, model, bits, kind, quick):
    path = cell_file(results, name, model, bits, kind)
    if path.exists():
        return
    begin, parts = time.perf_counter(), []
    number_format = {} if bits is None else {"n_bits": bits} | ({"integer_bits": 3} if kind == "fixed" else {})
    for fold in FOLDS.get(name, (None,)):
        problem = Problem(results, name, fold, model, quick)
        chosen, error = problem.search(number_format)
        parts.append({"validation": error, "chosen": chosen, "test": problem.test_errors(chosen)})
    save(path, parts, begin)


def run_rounded(results, name, model, quick):
    files = {
        (b, kind): cell_file(results, name, model, b, f"{kind}, rounded")
        for b in bits_of(name)
        for kind in ("contrast", "fixed")
    }
    if all(path.exists() for path in files.values()):
        return
    begin = time.perf_counter()
    parts = [round_cells(Problem(results, name, f, model, quick), bits_of(name)) for f in FOLDS.get(name, (None,))]
    for key, path in files.items():
        save(path, [part[key] for part in parts], begin)


def save(path, parts, begin):
    write(path, {"folds": parts, "seconds": round(time.perf_counter() - begin, 1)})
    print(f"{path.stem}: {summary(parts)}; chosen {[part['chosen'] for part in parts]}", flush=True)


def summary(parts):
    mean, spread = mean_and_spread(parts)
    return f"{mean:.2f} +- {spread:.2f}"


def mean_and_spread(parts):
    """Return the mean over seeds and folds, and the standard deviation over seeds of the mean over folds."""
    by_seed = np.mean([part["test"] for part in parts], axis=0)
    return float(by_seed.mean()), float(by_seed.std(ddof=1))


# -- the table --------------------------------------------------------------------------------------------------------


def verdict(measured, limit):
    if measured <= limit + 0.005:
        return "ok"
    return "within 0.4 (noise)" if measured <= limit + TEST_NOISE else "missed"


def table(results, names):
    """Return the markdown table; bold is the format that validation prefers, the one compared with the limit."""
    lines = ["| data | model | bits | " + " | ".join(FORMATS) + " | limit | |", "|" + "---|" * 9]
    for name in names:
        for model in MODELS:
            float_error = None
            for bits in (None, *sorted(bits_of(name), reverse=True)):
                kinds = ("float",) if bits is None else FORMATS
                files = {kind: cell_file(results, name, model, bits, kind) for kind in kinds}
                cells = {k: json.loads(path.read_text())["folds"] for k, path in files.items() if path.exists()}
                if not cells:
                    continue
                best = min(cells, key=lambda kind: np.mean([part["validation"] for part in cells[kind]]))
                measured = mean_and_spread(cells[best])[0]
                float_error = measured if bits is None else float_error
                texts = [summary(cells[k]).replace("+-", "±") if k in cells else "-" for k in kinds]
                texts = [f"**{t}**" if k == best else t for k, t in zip(kinds, texts, strict=True)]
                texts = [*texts, "", "", ""] if bits is None else texts
                limit = LIMITS.get((name, model), {}).get(bits)
                if (name, model, bits) == ("letter", "NB", 8) and float_error is not None:
                    limit = float_error + ROUNDING_NOISE
                ends = ["", ""] if limit is None else [f"{limit:.1f}", verdict(measured, limit)]
                lines.append("| " + " | ".join([name, model, str(bits or "float"), *texts, *ends]) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=SETS, action="append", help="data sets (default: all)")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="3 epochs and one stage of the search: does it run?")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "bayes_quantised")
    arguments = parser.parse_args()
    results, quick = arguments.results / "quick" if arguments.quick else arguments.results, arguments.quick
    names = arguments.only or SETS
    with parallel_config(backend="loky", n_jobs=arguments.jobs, inner_max_num_threads=1):
        for name in names:
            parts = ("search",) if name == "mnist" else ("search", *SEEDS)
            todo = [(name, fold, part) for fold in FOLDS.get(name, (None,)) for part in parts]
            Parallel()(delayed(learn_structure)(results, *item, quick) for item in todo)
            jobs = [delayed(run_trained)(results, name, model, None, "float", quick) for model in MODELS]
            jobs += [delayed(run_rounded)(results, name, model, quick) for model in MODELS]
            for kind in ("contrast", "fixed"):
                cells = [(model, bits) for bits in bits_of(name) for model in MODELS]
                jobs += [delayed(run_trained)(results, name, model, bits, kind, quick) for model, bits in cells]
            Parallel(batch_size=1)(jobs)
    print(table(results, names))


if __name__ == "__main__":
    main()
