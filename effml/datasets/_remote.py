"""The same sets elsewhere: on OpenML, and the small ones inside scikit-learn."""

from importlib.util import find_spec

import numpy as np
from sklearn import datasets as sklearn_datasets
from sklearn.utils import Bunch

# name -> (OpenML data_id, number of leading rows that are the official train part, or None).
# OpenML keeps the donor's row order, and so the official split, only where a number is given.
OPENML = {
    "letter": (6, None),
    "mnist": (554, 60_000),
    "fashion_mnist": (40996, 60_000),
    "satimage": (182, None),
    "usps": (41082, None),
    "magic": (1120, None),
    "spambase": (44, None),
    "adult": (1590, None),
    "eeg_eye_state": (1471, None),
    "ionosphere": (59, None),
    "sonar": (40, None),
    "pima_diabetes": (37, None),
    "splice": (46, None),
    "german_credit": (31, None),
}

SKLEARN = ("breast_cancer", "digits", "iris", "wine")


def load_sklearn(name):
    """Load a set that ships with scikit-learn; no download."""
    source = getattr(sklearn_datasets, f"load_{name}")()
    # digits holds grey values 0..16 as float64; uint8 is what a sensor delivers.
    data = source.data.astype(np.uint8) if name == "digits" else source.data
    return _bunch(name, data, source.target, list(source.feature_names), list(source.target_names), None, source.DESCR)


def load_openml(name):
    """Download a set from OpenML, or read it from scikit-learn's cache of earlier downloads."""
    data_id, n_train = OPENML[name]
    # scikit-learn's own ARFF parser needs no pandas, but is slow.
    parser = "pandas" if find_spec("pandas") else "liac-arff"
    source = sklearn_datasets.fetch_openml(data_id=data_id, as_frame=False, parser=parser)
    target, class_names = _encode_classes(source.target)
    names = list(source.feature_names)
    levels = {feature: list(values) for feature, values in (source.categories or {}).items() if feature in names}
    bunch = _bunch(name, np.asarray(source.data), target, names, class_names, n_train, source.DESCR)
    bunch.categorical = np.array([feature in levels for feature in names])
    if levels:
        bunch.category_levels = levels
    return bunch


def _encode_classes(target):
    """Return integer targets from 0 and the class names in the order of the integers."""
    classes, codes = np.unique(np.asarray(target).astype(str), return_inverse=True)
    if np.char.isdecimal(classes).all():  # "10" comes after "9"
        order = np.argsort(classes.astype(int))
        classes, codes = classes[order], np.argsort(order)[codes]
    return codes.astype(np.int64), [str(text) for text in classes]


def _bunch(name, data, target, feature_names, class_names, n_train, description):
    parts = dict.fromkeys(("X_train", "y_train", "X_test", "y_test"))
    if n_train is not None:
        parts = {
            "X_train": data[:n_train],
            "y_train": target[:n_train],
            "X_test": data[n_train:],
            "y_test": target[n_train:],
        }
    return Bunch(
        name=name,
        data=data,
        target=target,
        **parts,
        feature_names=[str(text) for text in feature_names],
        categorical=np.zeros(data.shape[1], dtype=bool),
        class_names=[str(text) for text in class_names],
        task="classification",
        description=description or "",
    )
