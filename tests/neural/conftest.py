"""The discretised files that the paper's authors released."""

import os
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def published():
    """Return a loader: name and fold -> X_train, y_train, X_test, y_test of codes."""
    folder = os.environ.get("EFFML_DATA")

    def load(name, fold=1):
        path = Path(folder or "", f"{name}.npz")
        if not folder or not path.is_file():
            pytest.skip(f"{name}.npz is not in the folder that EFFML_DATA names")
        suffix = "" if fold == 1 else f"_fold{fold}"
        with np.load(path) as data:
            return tuple(data[key + suffix] for key in ("X_train", "y_train", "X_test", "y_test"))

    return load
