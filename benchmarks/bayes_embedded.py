"""The best letter classifier within 1, 2, 2.5, 3 and 4 KiB of Cortex-M3 flash.

    EFFML_DATA=/path/to/npz python benchmarks/bayes_embedded.py

Official split of letter (16,000 / 4,000), uint8 rows in; flash is all that the function takes (code, tables, bin edges,
structure), compiled for Cortex-M3 with -Os and measured by `size`. Candidates are naive Bayes, the Chow-Liu TAN and
learned structures that may drop features, with contrast tables of 1 to 6 bits, over bins by MDL or by merging
neighbouring values until the budget is met. Everything is chosen by 3-fold cross-validation on the training part: first
family, bits and bins, then, for the best three, margin, objective and epochs. Every row of the test part must be
predicted as Python predicts it, or the script fails. Cross-validated scores are kept in benchmarks/results/.
"""

import json
from functools import cache
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.model_selection import StratifiedKFold

import effml
from effml.bayes import NaiveBayesClassifier, TANClassifier
from effml.datasets import load_dataset
from effml.discretization import BottleneckDiscretizer
from effml.program.targets import find_target, missing_tools

TARGET = "cortex-m3"
RESULTS = Path(__file__).resolve().parent / "results" / "bayes_embedded"
BUDGETS = (1024, 2048, 2560, 3072, 4096)
FIRST = {"objective": "margin", "margin": 2.0, "max_iter": 40}
REFINED = [
    {"objective": objective, "margin": margin, "max_iter": max_iter}
    for objective, margin in (
        ("margin", 0.7),
        ("margin", 1.0),
        ("margin", 2.0),
        ("margin", 4.0),
        ("cross_entropy", 2.0),
    )
    for max_iter in (40, 100)
]
SEEDS = (0, 1, 2)
# bits, merged bins and size penalty of learned structures
LEARNED = ((3, 100, 1e-4), (3, 100, 3e-5), (3, 130, 1e-4), (2, 120, 1e-5), (4, 130, 1e-4))


def build(spec, **training):
    """Return the unfitted model of a candidate: (family, bits, bins or "mdlp", max_bins or size penalty)."""
    family, n_bits, bins, extra = spec
    parameters = {"n_bits": n_bits, "random_state": 0, **training}
    if bins == "mdlp":
        parameters["max_bins"] = extra
    else:
        parameters["discretizer"] = BottleneckDiscretizer(total_bins=bins)
    if family == "NB":
        return NaiveBayesClassifier(**parameters)
    if family == "TAN":
        return TANClassifier(**parameters)
    return TANClassifier(
        structure="learned", drop_features=True, size_penalty=extra, ordering="cmi", n_candidates=15, **parameters
    )


class Letter:
    def __init__(self):
        data = load_dataset("letter")
        self.X, self.y, self.X_test, self.y_test = data.X_train, data.y_train, data.X_test, data.y_test
        self.folds = list(StratifiedKFold(3, shuffle=True, random_state=0).split(self.X, self.y))
        self.flash_of_shape, self.learned_flash = cache(self._flash_of_shape), cache(self._learned_flash)

    def fit(self, spec, seed=0, **training):
        return build(spec, **training).set_params(random_state=seed).fit(self.X, self.y)

    def _flash_of_shape(self, spec):
        """Return the bytes of a candidate whose structure does not depend on training."""
        return flash(self.fit(spec))

    def score(self, spec, training):
        """Return the cross-validated accuracy, computed once."""
        name = "-".join(map(str, (*spec, *training.values())))
        path = RESULTS / f"{name}.json"
        if not path.is_file():
            scores = [
                build(spec, **training)
                .set_params(random_state=k)
                .fit(self.X[train], self.y[train])
                .score(self.X[held_out], self.y[held_out])
                for k, (train, held_out) in enumerate(self.folds)
            ]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(scores))
        return float(np.mean(json.loads(path.read_text())))

    def most_bins(self, family, n_bits, budget):
        """Return how many merged bins fit, or None where not even two a feature do."""
        low, high = 2 * self.X.shape[1], 256
        if self.flash_of_shape((family, n_bits, low, None)) > budget:
            return None
        while low < high:
            middle = (low + high + 1) // 2
            if self.flash_of_shape((family, n_bits, middle, None)) <= budget:
                low = middle
            else:
                high = middle - 1
        return low

    def candidates(self, budget):
        """Yield what fits a budget, as many bins as fit; learned structures are measured once they are trained."""
        for family, all_bits in (("NB", range(2, 7)), ("TAN", range(1, 4))):
            for n_bits in all_bits:
                n_bins = self.most_bins(family, n_bits, budget)
                if n_bins is not None:
                    yield family, n_bits, n_bins, None
        for n_bits in range(2, 7):
            fitting = [m for m in (4, 6, 8, 10, 12, 14, 16, None) if self._mdlp_fits(n_bits, m, budget)]
            if fitting:
                yield "NB", n_bits, "mdlp", fitting[-1]
        for n_bits, n_bins, penalty in LEARNED:
            spec = "learned", n_bits, n_bins, penalty
            if 0.75 * budget < self.learned_flash(spec) <= budget:
                yield spec

    def _mdlp_fits(self, n_bits, max_bins, budget):
        return self.flash_of_shape(("NB", n_bits, "mdlp", max_bins)) <= budget

    def _learned_flash(self, spec):
        return flash(self.fit(spec, **FIRST))

    def choose(self, budget):
        """Return (score, spec, training) of the candidate that does best in cross-validation and fits."""
        first = sorted(((self.score(spec, FIRST), spec) for spec in self.candidates(budget)), reverse=True, key=_key)
        refined = [(self.score(spec, training), spec, training) for _, spec in first[:3] for training in REFINED]
        for score, spec, training in sorted(refined, reverse=True, key=_key):
            if spec[0] != "learned" or flash(self.fit(spec, **training)) <= budget:
                return score, spec, training
        raise SystemExit(f"nothing fits {budget} bytes")


def _key(scored):
    return scored[0]


def compiled(model, layout="size"):
    return effml.compile_c(model, input_dtype="uint8", layout=layout)


def flash(model):
    return effml.footprint(model, target=TARGET, input_dtype="uint8", layout="size").flash_bytes


def main():
    missing = missing_tools(find_target(TARGET))
    if missing:
        raise SystemExit(f"{', '.join(missing)} needed: the budgets are bytes on Cortex-M3")
    letter = Letter()
    table = Table(title="letter, official split, uint8 rows")
    names = (
        "budget",
        "model",
        "bits",
        "bins",
        "training",
        "CV %",
        "test %",
        "3 seeds",
        "layout",
        "Cortex-M3",
        "x86-64",
    )
    for name in names:
        table.add_column(name, justify="right")
    for budget in BUDGETS:
        score, spec, training = letter.choose(budget)
        models = [letter.fit(spec, seed, **training) for seed in SEEDS]
        tests = [100 * model.score(letter.X_test, letter.y_test) for model in models]
        c = compiled(models[0])
        agreement = c.agreement(letter.X_test)
        if agreement.n_equal != agreement.n_rows:
            raise SystemExit(f"{spec}: C and Python differ")
        table.add_row(
            str(budget),
            spec[0],
            str(spec[1]),
            f"{models[0].n_states_[models[0].parents_ != -2].sum()}{' MDL' if spec[2] == 'mdlp' else ''}",
            f"{training['objective']} {training['margin']:g} {training['max_iter']}",
            f"{100 * score:.2f}",
            f"{tests[0]:.2f}",
            f"{np.mean(tests):.2f} ± {np.std(tests):.2f}",
            next(step.layout for step in c.program.steps if hasattr(step, "layout")),
            str(flash(models[0])),
            str(c.flash_bytes),
        )
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
