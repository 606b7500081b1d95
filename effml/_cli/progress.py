"""A progress bar over the fits of a search, worker processes included."""

import os
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from sklearn.metrics import get_scorer

POLL_SECONDS = 0.2


class CountingScorer:
    """A named scorer that adds one byte to a file at each call: a counter that all processes share."""

    def __init__(self, scoring, path):
        self.scoring = scoring
        self.path = path

    def __call__(self, estimator, X, y, **params):
        score = get_scorer(self.scoring)(estimator, X, y, **params)
        with open(self.path, "ab") as counter:
            counter.write(b".")
        return score


@contextmanager
def counted(scoring, n_fits, words, console):
    """Yield a scorer equal to `scoring`; each of its calls moves a bar of `n_fits` on `console`."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        tempfile.TemporaryDirectory(prefix="effml-") as folder,
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar,
    ):
        path = Path(folder, "count")
        path.touch()
        task = bar.add_task(words, total=n_fits)
        done = threading.Event()

        def follow():
            while not done.wait(POLL_SECONDS):
                bar.update(task, completed=os.path.getsize(path))

        follower = threading.Thread(target=follow, daemon=True)
        follower.start()
        try:
            yield CountingScorer(scoring, str(path))
        finally:
            done.set()
            follower.join()
