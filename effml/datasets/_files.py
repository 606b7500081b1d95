"""Sets stored as ``name.npz``: what the arrays are called and which splits they carry.

A set has either ``X, y`` or ``X_train, y_train, X_test, y_test``. Further published splits come in three forms:
whole arrays per fold (``X_train_fold2``), a fold number per row (``fold``), or row indices (``dsf_test_idx`` and
perhaps ``dsf_train_idx``; the rest of the rows otherwise). Text in code form is ``chars_train, chars_val, vocab``.
"""

import json
import os
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

ENVIRONMENT_VARIABLE = "EFFML_DATA"

# A file that holds one of these sets of arrays is a data set.
FORMS = ({"X", "y"}, {"X_train", "y_train", "X_test", "y_test"}, {"chars_train", "chars_val", "vocab"})

_ROW_KEYS = ("X", "y", "X_train", "y_train", "X_test", "y_test")


def data_folder():
    """Return the folder that ``EFFML_DATA`` names, or None when the variable is unset or empty."""
    value = os.environ.get(ENVIRONMENT_VARIABLE)
    if not value:
        return None
    folder = Path(value).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"{ENVIRONMENT_VARIABLE}={value!r} is no folder; unset it or name one with .npz files.")
    return folder


def names_in(folder):
    """Return the sorted names of the data sets among the ``.npz`` files of `folder`."""
    return sorted(path.stem for path in folder.glob("*.npz") if _is_dataset(path))


def _is_dataset(path):
    with np.load(path, allow_pickle=False) as arrays:
        keys = set(arrays.files)
    return any(wanted <= keys for wanted in FORMS)


def read(path):
    """Read an ``.npz`` file into a dict of arrays and Python scalars, never unpickling anything."""
    with np.load(path, allow_pickle=False) as arrays:
        content = {key: arrays[key] if arrays[key].ndim else arrays[key].item() for key in arrays.files}
    if "category_levels" in content:
        content["category_levels"] = json.loads(content["category_levels"])
    return content


def available_splits(content):
    """Return the values that `split` accepts for a set read by :func:`read`, besides None."""
    splits = list(range(1, content.get("n_folds", 0) + 1)) if content.get("n_folds", 1) > 1 else []
    if "fold" in content:
        splits += sorted(int(k) for k in np.unique(content["fold"]))
    return splits + sorted(key.removesuffix("_test_idx") for key in content if key.endswith("_test_idx"))


def to_bunch(name, content, split):
    """Arrange the arrays of a file as the Bunch that :func:`effml.datasets.load_dataset` documents."""
    if "chars_train" in content:
        content = _next_character(content)
    content = dict(content)
    splits = available_splits(content)
    if split is not None and split not in splits:
        accepted = ", ".join(map(repr, [None, *splits]))
        raise ValueError(f"split={split!r} is unknown for data set {name!r}; accepted: {accepted}.")

    if split is None:
        X, y, n_train = _official(content)
        train, test = (slice(0, n_train), slice(n_train, None)) if n_train is not None else (None, None)
    elif isinstance(split, int) and "fold" not in content:
        content = _choose_fold(content, split)
        X, y, n_train = _official(content)
        train, test = slice(0, n_train), slice(n_train, None)
    else:
        X, y = content["X"], content["y"]
        train, test = _rows_of(content, split)

    parts = dict.fromkeys(("X_train", "y_train", "X_test", "y_test"))
    if train is not None:
        parts = {"X_train": X[train], "y_train": y[train], "X_test": X[test], "y_test": y[test]}
    extras = {key: value for key, value in content.items() if key not in _ROW_KEYS and "_fold" not in key}
    n_features = X.shape[1]
    extras["feature_names"] = [str(text) for text in content.get("feature_names", map("x{}".format, range(n_features)))]
    extras.setdefault("categorical", np.zeros(n_features, dtype=bool))
    extras["class_names"] = [str(text) for text in content["class_names"]] if "class_names" in content else None
    return Bunch(**{**extras, "name": name, "data": X, "target": y, **parts})


def _official(content):
    """Return all rows, all targets and how many rows, from the first, are the train part (None: no split)."""
    if "X" in content:
        return content["X"], content["y"], None
    X = np.concatenate([content["X_train"], content["X_test"]])
    y = np.concatenate([content["y_train"], content["y_test"]])
    return X, y, len(content["X_train"])


def _choose_fold(content, fold):
    """Put the arrays of `fold` under the plain keys, where fold 1 already is."""
    suffix = f"_fold{fold}"
    return {**content, **{key.removesuffix(suffix): value for key, value in content.items() if key.endswith(suffix)}}


def _rows_of(content, split):
    if isinstance(split, int):
        in_test = content["fold"] == split
        return np.flatnonzero(~in_test), np.flatnonzero(in_test)
    test = content[f"{split}_test_idx"]
    train = content.get(f"{split}_train_idx")
    return np.setdiff1d(np.arange(len(content["X"])), test) if train is None else train, test


def _next_character(content):
    """Pose a text as one-feature classification: the code of a character predicts the next one's."""
    parts = {}
    for part, key in (("train", "chars_train"), ("test", "chars_val")):
        parts[f"X_{part}"], parts[f"y_{part}"] = content[key][:-1, None], content[key][1:]
    return {
        **content,
        **parts,
        "feature_names": ["char"],
        "class_names": content["vocab"],
        "categorical": np.ones(1, bool),
    }
