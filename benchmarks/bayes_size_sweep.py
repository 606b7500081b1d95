"""Size-aware structure learning: error against size over the size penalty, with and without dropping features.

    EFFML_DATA=/path/to/npz python benchmarks/bayes_size_sweep.py [letter_mdl usps_mdl satimage_mdl]

The authors' discretised letter, usps and satimage (fold 1). A structure is learned by the hybrid objective among the 8
most informative earlier features in Chow-Liu order, then the tables are trained again on it: in float, and under 4-bit
contrast tables, whose error is set against the bits, 4 for each parameter. "As learned" are the tables of structure
learning itself. The margin is chosen once a data set on held-out training rows, with the Chow-Liu tree. Every run is
kept in benchmarks/results/, so an interrupted sweep goes on where it stopped. Writes docs/images/bayes_size_sweep.png.

Recovery: with the likelihood as objective, all earlier features as candidates and no penalty, the learned structure
should be the Chow-Liu tree. Counted on letter, without the feature of one state.
"""

import json
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter
from rich.console import Console
from rich.table import Table
from sklearn.model_selection import train_test_split

from effml.bayes import TANClassifier
from effml.bayes.structure import breadth_first_order, chow_liu_parents, conditional_mutual_information
from effml.bayes.structure_learning import candidate_parents, learn_structure
from effml.bayes.tables import ScoreTable
from effml.bayes.training import Objective, Schedule
from effml.datasets import load_dataset

mpl.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "bayes_size_sweep"
PLOT = HERE.parent / "docs" / "images" / "bayes_size_sweep.png"

DATA_SETS = ("letter_mdl", "usps_mdl", "satimage_mdl")
PENALTIES = (0.0, *sorted([*np.logspace(-6, -1, 11).round(8).tolist(), 0.0015, 0.002]))  # most edges go by 3e-3
SEEDS = (0, 1)
MARGINS = (1.0, 3.0, 10.0)
MARGIN_WEIGHT, SHARPNESS, RATE = 100.0, 10.0, 0.03
N_BITS, N_CANDIDATES = 4, 8
STRUCTURE_EPOCHS = {"letter_mdl": 22, "usps_mdl": 30, "satimage_mdl": 58}  # 2,000 to 3,000 mini-batches
RECOVERY_EPOCHS = 40
TABLE_EPOCHS = {"letter_mdl": 30, "usps_mdl": 20, "satimage_mdl": 30}


def kept(name, compute):
    """Return the result of that name, computed once and stored as JSON."""
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        result = compute()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result))
    return json.loads(path.read_text())


class Problem:
    """One data set with what all its runs share: the margin, and which parents each feature may choose."""

    def __init__(self, name):
        data = load_dataset(name)
        self.X, self.y, self.X_test, self.y_test = data.X_train, data.y_train, data.X_test, data.y_test
        self.name, self.n_classes = name, len(np.unique(self.y))
        self.n_states = np.maximum(self.X.max(axis=0), self.X_test.max(axis=0)).astype(np.int64) + 1
        information = conditional_mutual_information(
            self.X, self.y, n_states=self.n_states, n_classes=self.n_classes, sample_weight=None
        )
        self.chow_liu = chow_liu_parents(information)
        ordering = breadth_first_order(self.chow_liu)
        self.candidates = candidate_parents(
            "informative", N_CANDIDATES, ordering, self.n_states, information=information
        )
        self.margin = kept(f"{name}-margin", self.choose_margin)

    def model(self, parents, seed, **parameters):
        given = {
            "objective": "hybrid",
            "margin_weight": MARGIN_WEIGHT,
            "max_iter": TABLE_EPOCHS[self.name],
            **parameters,
        }
        return TANClassifier(structure=parents, discretizer=None, n_states=self.n_states, random_state=seed, **given)

    def choose_margin(self):
        X, X_held, y, y_held = train_test_split(self.X, self.y, test_size=0.2, random_state=0, stratify=self.y)
        found = [self.model(self.chow_liu, 0, margin=margin).fit(X, y).score(X_held, y_held) for margin in MARGINS]
        return MARGINS[int(np.argmax(found))]

    def run(self, penalty, may_drop, seed):
        """Return parameters, edges, dropped features and test errors of one structure."""
        learned = learn_structure(
            self.X,
            self.y,
            None,
            candidates=self.candidates,
            n_states=self.n_states,
            n_classes=self.n_classes,
            objective=Objective.named("hybrid", margin=self.margin, margin_weight=MARGIN_WEIGHT, sharpness=SHARPNESS),
            schedule=Schedule(max_iter=STRUCTURE_EPOCHS[self.name], learning_rate_init=RATE),
            size_penalty=penalty,
            may_drop=may_drop,
            random_state=np.random.RandomState(seed),
        )
        as_learned = ScoreTable(learned.log_prior, learned.log_tables, learned.parents, self.n_states)
        labels = np.unique(self.y)[as_learned.argmax(self.X_test)]
        again = self.model(learned.parents, seed, margin=self.margin).fit(self.X, self.y)
        low_bit = self.model(learned.parents, seed, margin=self.margin, objective="margin", n_bits=N_BITS)
        low_bit.fit(self.X, self.y)
        return {
            "n_parameters": int(again.n_parameters_),
            "n_edges": int((learned.parents >= 0).sum()),
            "n_dropped": int((learned.parents == -2).sum()),
            "as_learned": 100 * float(np.mean(labels != self.y_test)),
            "again": 100 * (1 - again.score(self.X_test, self.y_test)),
            "low_bit": 100 * (1 - low_bit.score(self.X_test, self.y_test)),
        }


def recovery(problem, max_iter, seed):
    """Return how many of the Chow-Liu parents structure learning finds, and of how many."""
    model = TANClassifier(
        structure="learned",
        candidate_parents="all",
        ordering="cmi",
        structure_max_iter=max_iter,
        discretizer=None,
        n_states=problem.n_states,
        random_state=seed,
    ).fit(problem.X, problem.y)
    useful = problem.n_states > 1
    return {
        "found": int((model.parents_ == problem.chow_liu)[useful].sum()),
        "of": int(useful.sum()),
    }


def mean_runs(problem, penalty, may_drop):
    """Return the means over the seeds and half their range for the error that is plotted."""
    kind = "drop" if may_drop else "keep"
    runs = [
        kept(
            f"{problem.name}-{kind}-{penalty:g}-{seed}",
            lambda seed=seed: problem.run(penalty, may_drop, seed),
        )
        for seed in SEEDS
    ]
    mean = {key: float(np.mean([run[key] for run in runs])) for key in runs[0]}
    errors = [run["low_bit"] for run in runs]
    return mean | {"spread": (max(errors) - min(errors)) / 2, "bits": N_BITS * mean["n_parameters"]}


def sweep(problem):
    return {may_drop: [mean_runs(problem, penalty, may_drop) for penalty in PENALTIES] for may_drop in (False, True)}


def print_table(problem, points):
    table = Table(title=f"{problem.name}, margin {problem.margin:g}, mean of {len(SEEDS)} seeds")
    names = ("penalty", "features", "parameters", "edges", "dropped", "as learned %", "again %", "4 bits %", "bits")
    for name in names:
        table.add_column(name, justify="right")
    for may_drop, rows in points.items():
        for penalty, row in zip(PENALTIES, rows, strict=True):
            table.add_row(
                f"{penalty:g}",
                "may go" if may_drop else "all",
                f"{row['n_parameters']:.0f}",
                f"{row['n_edges']:.1f}",
                f"{row['n_dropped']:.1f}",
                f"{row['as_learned']:.2f}",
                f"{row['again']:.2f}",
                f"{row['low_bit']:.2f} ± {row['spread']:.2f}",
                f"{row['bits']:.0f}",
            )
        table.add_section()
    Console(width=120).print(table)


def plot(all_points):
    figure, axes = plt.subplots(1, len(all_points), figsize=(4.4 * len(all_points), 3.6), layout="constrained")
    styles = {False: ("o-", "C0", "all features kept"), True: ("s--", "C1", "features may be dropped")}
    for axis, (name, points) in zip(np.atleast_1d(axes), all_points.items(), strict=True):
        for may_drop, rows in points.items():
            line, colour, label = styles[may_drop]
            rows = sorted((row for row in rows if row["low_bit"] < 60), key=lambda row: row["bits"])
            bits, errors = [row["bits"] for row in rows], [row["low_bit"] for row in rows]
            spread = [row["spread"] for row in rows]
            axis.errorbar(bits, errors, spread, fmt=line, color=colour, label=label, ms=4, lw=1, capsize=2)
        axis.set(xscale="log", title=name.removesuffix("_mdl"), xlabel="bits of the tables (4 a parameter)")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.grid(alpha=0.3, which="both")
    np.atleast_1d(axes)[0].set_ylabel("test error %")
    np.atleast_1d(axes)[0].legend(frameon=False)
    PLOT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PLOT, dpi=120)


def main():
    all_points = {}
    for name in sys.argv[1:] or DATA_SETS:
        problem = Problem(name)
        all_points[name] = sweep(problem)
        print_table(problem, all_points[name])
        for seed in SEEDS if name == "letter_mdl" else ():
            result = kept(
                f"{name}-recovery-{seed}", lambda seed=seed, problem=problem: recovery(problem, RECOVERY_EPOCHS, seed)
            )
            print(f"likelihood, seed {seed}, {RECOVERY_EPOCHS} epochs: {result['found']} of {result['of']} parents")
    plot(all_points)


if __name__ == "__main__":
    main()
