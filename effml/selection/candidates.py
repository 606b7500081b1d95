"""The families and settings that ``effml search`` tries when the user names none."""

import math

from effml.selection.budget import check_budget

__all__ = ["bayes_candidates", "default_candidates"]

# Tables trained for a margin beat counted ones of the same bytes on all but small sets of rows, so they make up most of
# the grid; more than 16 bins, and more than 5 bits, never reached the fronts of letter, satimage, magic and
# wearable_postures.
_BITS = {0: (4,), 1: (2, 3, 4, 5), 2: (1, 2, 3, 4, 5, 8)}
_TAN_BITS = {0: (4,), 1: (2, 3, 4), 2: (1, 2, 3, 4, 5)}
_COUNTED_BITS = {0: (), 1: (4,), 2: (3, 4, 8)}
_MARGINS = {0: (3.0,), 1: (3.0,), 2: (1.0, 3.0, 10.0)}
_MAX_BINS = {0: (4, 16), 1: (4, 8, 16), 2: (4, 8, 16, None)}
_SHARED_BINS = {0: (), 1: (5, 9), 2: (4, 6, 8, 10, 13)}  # a feature, of naive Bayes; spent where they tell most
_EPOCHS = {0: (20, 10), 1: (30, 12), 2: (40, 40)}  # of naive Bayes, of a TAN
_SIZE_PENALTIES = (1e-4, 1e-3, 1e-2)
_LEAVES = {
    0: (8, 64, 512),
    1: (4, 8, 16, 32, 64, 128, 256, 512, 1024),
    2: (2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024),
}
_REGULARISATION = {0: (1.0,), 1: (1.0,), 2: (0.1, 1.0, 10.0)}

_BYTES_PER_LEAF = 2  # below what any layout of a tree needs: a bound, so that nothing feasible is dropped
_BYTES_PER_WEIGHT = 1  # int8


def default_candidates(
    *,
    budget,
    n_classes,
    n_features,
    categorical=(),
    missing=False,
    class_weight=None,
    random_state=None,
    effort=1,
):
    """Candidates for :class:`~effml.selection.BudgetSearchCV` that cover the sizes a budget allows.

    Naive Bayes and tree-augmented naive Bayes over number formats and bin counts, decision trees over leaf counts, a
    scaled logistic regression in integers and, with ``effort=2``, decision snippets of a forest. Settings whose
    constants alone exceed the flash budget are left out; the smallest of each family always stays, so that a search
    that finds nothing can say how small it got.

    Parameters
    ----------
    budget : dict, str or None
        As in BudgetSearchCV.
    n_classes, n_features : int
        Of the table to learn.
    categorical : sequence of column names or indices, default=()
        Columns that hold categories. The Bayesian classifiers take them as they are; trees get them as ordinal codes,
        logistic regression one-hot.
    missing : bool, default=False
        Whether values are missing. Logistic regression, which has no answer to that, is then left out; so are trees if
        there are categories as well, since an encoder that learned a missing category cannot be lowered.
    class_weight : dict, "balanced" or None, default=None
        Passed to every candidate.
    random_state : int or None, default=None
        Passed to the candidates that draw random numbers.
    effort : {0, 1, 2}, default=1
        How finely the settings are sampled.

    Returns
    -------
    candidates : list of (name, estimator, param_grid)

    Raises
    ------
    ValueError
        If `effort` is not 0, 1 or 2, a count is below its least value, or the budget is malformed.

    Examples
    --------
    >>> from effml.selection import default_candidates
    >>> [name for name, _, _ in default_candidates(budget="flash=4KiB", n_classes=3, n_features=16)]
    ['naive_bayes', 'tan', 'tree', 'logistic']
    """
    if effort not in _MAX_BINS:
        raise ValueError(f"effort must be 0, 1 or 2, got {effort!r}")
    if n_classes < 2 or n_features < 1:
        raise ValueError(f"n_classes must be at least 2 and n_features at least 1, got {n_classes} and {n_features}")
    flash = check_budget(budget).get("flash_bytes", math.inf)
    shared = {"categorical": categorical, "class_weight": class_weight, "random_state": random_state}
    candidates = bayes_candidates(**shared, n_features=n_features, effort=effort)
    if not (missing and len(categorical)):
        candidates.append(_tree(flash, categorical, class_weight, random_state, effort))
    if effort == 2 and math.isfinite(flash):
        candidates.append(_snippets(flash, categorical, class_weight, random_state))
    if not missing and _weights(n_classes, n_features) * _BYTES_PER_WEIGHT <= flash:
        candidates.append(_logistic(categorical, class_weight, effort))
    return candidates


def bayes_candidates(*, n_features=None, categorical=(), class_weight=None, random_state=None, effort=1):
    """Bayesian network classifiers for :class:`~effml.selection.BudgetSearchCV`: bits, bins, structure, size penalty.

    Parameters
    ----------
    n_features : int or None, default=None
        With it, naive Bayes is also tried over bins that all features share (`BottleneckDiscretizer`).
    categorical : sequence of column names or indices, default=()
    class_weight : dict, "balanced" or None, default=None
    random_state : int or None, default=None
    effort : {0, 1, 2}, default=1
        How finely the settings are sampled; 2 also learns structures that may drop features. With
        ``max_iter_rungs=(5, 20, 60)`` the search spends long training on the promising ones only.

    Returns
    -------
    candidates : list of (name, estimator, param_grid)

    Examples
    --------
    >>> from effml.selection import bayes_candidates
    >>> [name for name, _, _ in bayes_candidates(effort=2)]
    ['naive_bayes', 'tan', 'learned_tan']
    """
    from effml.bayes import NaiveBayesClassifier, TANClassifier
    from effml.discretization import BottleneckDiscretizer

    if effort not in _MAX_BINS:
        raise ValueError(f"effort must be 0, 1 or 2, got {effort!r}")
    shared = {
        "class_weight": class_weight,
        "categorical_features": list(categorical) or None,
        "random_state": random_state,
    }
    naive_epochs, tan_epochs = _EPOCHS[effort]
    bins = list(_MAX_BINS[effort])

    def grid(bits):
        margins = list(_MARGINS[effort])
        trained = {"objective": ["margin"], "margin": margins, "n_bits": list(bits), "max_bins": bins}
        counted = {"objective": ["likelihood"], "n_bits": list(_COUNTED_BITS[effort]), "max_bins": bins}
        return [trained, counted] if _COUNTED_BITS[effort] else [trained]

    naive_grids = grid(_BITS[effort])
    if n_features is not None and _SHARED_BINS[effort]:
        levels = "from_dtype" if shared["categorical_features"] is None else shared["categorical_features"]
        shared_bins = [
            BottleneckDiscretizer(total_bins=per_feature * n_features, categorical_features=levels)
            for per_feature in _SHARED_BINS[effort]
        ]
        trained = {key: values for key, values in naive_grids[0].items() if key != "max_bins"}
        naive_grids.append({**trained, "discretizer": shared_bins})
    candidates = [
        ("naive_bayes", NaiveBayesClassifier(**shared, max_iter=naive_epochs), naive_grids),
        ("tan", TANClassifier(**shared, max_iter=tan_epochs), grid(_TAN_BITS[effort])),
    ]
    if effort == 2:
        learned = TANClassifier(
            **shared, structure="learned", drop_features=True, objective="margin", max_iter=tan_epochs
        )
        choices = {"n_bits": [2, 4], "max_bins": [4, 8], "size_penalty": list(_SIZE_PENALTIES)}
        candidates.append(("learned_tan", learned, choices))
    return candidates


def _tree(flash, categorical, class_weight, random_state, effort):
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder
    from sklearn.tree import DecisionTreeClassifier

    smallest, *others = _LEAVES[effort]
    leaves = [smallest] + [n for n in others if n * _BYTES_PER_LEAF <= flash]
    tree = DecisionTreeClassifier(class_weight=class_weight, random_state=random_state)
    if len(categorical) == 0:
        return "tree", tree, {"max_leaf_nodes": leaves}
    ordinal = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    encoder = ColumnTransformer([("categories", ordinal, list(categorical))], remainder="passthrough")
    return "tree", make_pipeline(encoder, tree), {"decisiontreeclassifier__max_leaf_nodes": leaves}


def _snippets(flash, categorical, class_weight, random_state):
    from effml.forests import DecisionSnippetClassifier

    model = DecisionSnippetClassifier(
        budget_bytes=int(flash),
        class_weight=class_weight,
        categorical_features=list(categorical) or "from_dtype",
        random_state=random_state,
    )
    return "snippets", model, {"n_cuts": [15, 31]}


def _logistic(categorical, class_weight, effort):
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    from effml.adapters.quantized import QuantizedLinearClassifier

    scaler = StandardScaler()
    if len(categorical):
        one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
        scaler = ColumnTransformer([("categories", one_hot, list(categorical))], remainder=scaler)
    model = make_pipeline(scaler, LogisticRegression(class_weight=class_weight, max_iter=200))
    quantised = QuantizedLinearClassifier(model)
    strengths = list(_REGULARISATION[effort])
    return "logistic", quantised, {"estimator__logisticregression__C": strengths}


def _weights(n_classes, n_features):
    """At least this many: one-hot columns add to them."""
    return (1 if n_classes == 2 else n_classes) * (n_features + 1)
