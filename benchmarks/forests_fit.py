"""Time from rows to a model of decision snippets on letter: growing, mining and fit of a forest of 100 trees, depth 10.

    EFFML_DATA=/path/to/npz python benchmarks/forests_fit.py [--min-support 0.1 20] [--budget 8192]

Wall seconds with two threads, and the error on letter's own test rows.
"""

import argparse
import time

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.ensemble import RandomForestClassifier

from effml.datasets import load_dataset
from effml.forests import DecisionSnippetClassifier, DecisionSnippetTransformer

N_JOBS = 2


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--min-support", nargs="+", default=["0.1", "20"], help="share or number of trees")
    parser.add_argument("--budget", type=int, help="bytes")
    options = parser.parse_args()
    data = load_dataset("letter")
    X, X_test = (np.asarray(X, dtype=np.float32) for X in (data.X_train, data.X_test))
    forest = RandomForestClassifier(100, max_depth=10, n_jobs=N_JOBS, random_state=0)
    start = time.perf_counter()
    fitted = forest.fit(X, data.y_train)
    growing = time.perf_counter() - start
    table = Table(title=f"letter, {len(X)} rows; growing takes {growing:.1f} s of each total")
    for column in ("min_support", "mined", "mining s", "total s", "snippets", "test error %"):
        table.add_column(column, justify="right")
    for text in options.min_support:
        support = float(text) if "." in text else int(text)
        start = time.perf_counter()
        mined = DecisionSnippetTransformer(fitted, max_pattern_size=3, min_support=support).fit(X)
        mining = time.perf_counter() - start
        model = DecisionSnippetClassifier(
            forest, min_support=support, budget_bytes=options.budget, n_jobs=N_JOBS, random_state=0
        )
        start = time.perf_counter()
        model.fit(X, data.y_train)
        total, error = time.perf_counter() - start, 100 * (1 - model.score(X_test, data.y_test))
        n_mined = len(mined.snippets_)
        table.add_row(text, str(n_mined), f"{mining:.2f}", f"{total:.1f}", str(model.n_snippets_), f"{error:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
