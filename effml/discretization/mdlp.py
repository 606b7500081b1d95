"""Supervised binning by the minimum description length principle; the cuts are made in `_cuts.py`."""

from numbers import Integral

from sklearn.utils._param_validation import Interval

from effml.discretization._base import SupervisedDiscretizer
from effml.discretization._cuts import learn_edges


class MDLPDiscretizer(SupervisedDiscretizer):
    """Supervised binning by the minimum description length principle.

    A numeric column is cut where this lowers the class entropy most, and the two sides are cut again, as long as a
    cut saves more bits than it costs to describe (Fayyad and Irani's criterion, any number of classes). A column that
    says nothing about the class keeps a single state. Categorical columns keep their levels as states.

    Parameters
    ----------
    max_bins : int or None, default=None
        Largest number of bins of a numeric column, at least 2. Cuts are then made in the order of the entropy they
        remove from the column (in bits, over all its samples). ``None`` makes every cut that the criterion accepts.
        Levels of categorical columns are never merged.
    categorical_features : "from_dtype", None or array-like of bool, int or str, default="from_dtype"
        Columns whose values are levels, not numbers: ``"from_dtype"`` takes the category and text columns of a
        DataFrame; or a mask, indices or names, as in scikit-learn's histogram gradient boosting.
    handle_unknown : {"missing", "error"}, default="missing"
        Levels not seen by `fit`: code them as missing, or raise.
    missing : {"code", "error"}, default="code"
        NaN, None and pandas.NA: leave them out of the fit and code them as ``n_states_[i]``, or raise.
    n_jobs : int or None, default=None
        Threads. ``None`` means 1 unless in a ``joblib.parallel_config`` context, -1 all cores. The result does not
        depend on it.

    Attributes
    ----------
    bin_edges_ : list of float64 arrays, length n_features
        Ascending interior cuts of each column, empty for categorical ones. A value's code is the number of cuts
        below it, so a value equal to a cut lies on its left.
    categories_ : list of (ndarray or None), length n_features
        Sorted levels of each categorical column, None for numeric columns.
    n_states_ : ndarray of int, shape (n_features,)
        Number of states of each column, missing not counted; at least 1.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features,)
        Only if `X` has column names that are all strings.

    Notes
    -----
    A cut is accepted iff ``Gain > [log2(n - 1) + log2(3^k - 2) - (k Ent(S) - k1 Ent(S1) - k2 Ent(S2))] / n``, where n
    is the total weight of the samples that are split and k, k1, k2 count the classes on both sides, on the left and
    on the right. Candidates are the midpoints between adjacent distinct values, unless both occur with only one and
    the same class; of equally good ones the lowest is taken. Whole sample weights equal repeated rows, rows of weight
    0 are ignored.

    References
    ----------
    U. M. Fayyad and K. B. Irani, "Multi-interval discretization of continuous-valued attributes for classification
    learning", IJCAI 1993, pp. 1022-1027.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from effml.discretization import MDLPDiscretizer
    >>> X, y = load_iris(return_X_y=True)
    >>> discretizer = MDLPDiscretizer().fit(X, y)
    >>> discretizer.n_states_
    array([3, 3, 3, 3])
    >>> discretizer.bin_edges_[3].round(2)
    array([0.8 , 1.75])
    >>> discretizer.transform(X[[0, 60, 120]])[:, 3]
    array([0, 1, 2], dtype=uint8)
    """

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's own form
        **SupervisedDiscretizer._parameter_constraints,
        "max_bins": [Interval(Integral, 2, None, closed="left"), None],
    }

    def __init__(
        self, *, max_bins=None, categorical_features="from_dtype", handle_unknown="missing", missing="code", n_jobs=None
    ):
        self.max_bins = max_bins
        self.categorical_features = categorical_features
        self.handle_unknown = handle_unknown
        self.missing = missing
        self.n_jobs = n_jobs

    def _learn_edges(self, matrix, classes, weights, numeric):
        return learn_edges(matrix, classes, weights, numeric, max_bins=self.max_bins, n_jobs=self.n_jobs)
