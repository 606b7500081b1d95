"""BudgetSearchCV with the presets for Bayesian network classifiers on letter: how long, and what comes out.

    EFFML_DATA=/path/to/npz python benchmarks/bayes_search.py

Official split, uint8 rows, flash budgets of 1, 2, 3, 4 and 8 KiB (the estimate for the host, which the compiled size is
set against). Bits, bins, margin, structure and size penalty of `bayes_candidates(effort=2)`, rungs of 5, 20 and 60
epochs, 3 folds; one search, from whose table each budget is then filled.
"""

import time

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.base import clone

import effml
from effml.datasets import load_dataset
from effml.selection import BudgetSearchCV, bayes_candidates

KIB = (1, 2, 3, 4, 8)


def main():
    data = load_dataset("letter")
    begin = time.perf_counter()
    search = BudgetSearchCV(
        bayes_candidates(n_features=data.X_train.shape[1], effort=2),
        budget="flash=8KiB",
        max_iter_rungs=(5, 20, 60),
        cv=3,
        n_jobs=2,
        input_dtype="uint8",
        random_state=0,
    ).fit(data.X_train, data.y_train)
    minutes = (time.perf_counter() - begin) / 60
    results = search.cv_results_
    table = Table(title=f"letter: {len(results['params'])} fits of 3 folds in {minutes:.1f} minutes")
    for name in ("KiB", "chosen", "epochs", "CV %", "test %", "estimated", "x86-64", "rows equal"):
        table.add_column(name, justify="right")
    candidates = {name: model for name, model, _ in search.candidates}
    for kib in KIB:
        fits = np.flatnonzero(-results["mean_test_flash_bytes"] <= 1024 * kib)
        best = fits[np.argmax(results["mean_test_score"][fits])]
        parameters = dict(results["params"][best])
        model = clone(candidates[parameters.pop("candidate")]).set_params(random_state=0)
        model.set_params(**clone(parameters, safe=False)).fit(data.X_train, data.y_train)
        compiled = effml.compile_c(model, input_dtype="uint8")
        agreement = compiled.agreement(data.X_test)
        table.add_row(
            str(kib),
            f"{type(model).__name__} " + ", ".join(f"{k}={v}" for k, v in parameters.items()),
            str(model.max_iter),
            f"{100 * (1 - results['mean_test_score'][best]):.2f}",
            f"{100 * (1 - model.score(data.X_test, data.y_test)):.2f}",
            f"{effml.footprint(model, input_dtype='uint8').flash_bytes}",
            str(compiled.flash_bytes),
            f"{agreement.n_equal} of {agreement.n_rows}",
        )
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
