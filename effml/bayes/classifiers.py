"""Naive Bayes and tree-augmented naive Bayes (TAN) over discrete features.

    score_c(x) = log p(c) + sum_i log p(x_i | x_pa(i), c)          predict argmax_c score_c(x)

with pa(i) one other feature or none (naive Bayes: none at all). An estimator here is a choice of structure
(`effml.bayes.structure`), parameters (`effml.bayes.parameters`) and number format (`effml.bayes.rounding`).

Sources: N. Friedman, D. Geiger, M. Goldszmidt, "Bayesian network classifiers", Machine Learning 29, 1997; W. Roth,
G. Schindler, H. Froening, F. Pernkopf, "On Resource-Efficient Bayesian Network Classifiers and Deep Neural Networks",
ICPR 2020.
"""

from numbers import Integral, Real
from typing import ClassVar

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from effml.bayes._base import BayesNetClassifier
from effml.bayes.structure import (
    breadth_first_order,
    check_parents,
    chow_liu_parents,
    conditional_mutual_information,
    random_parents,
)
from effml.bayes.structure_learning import (
    CANDIDATES,
    candidate_parents,
    check_image_shape,
    check_ordering,
    learn_structure,
)

__all__ = ["NaiveBayesClassifier", "TANClassifier"]


class NaiveBayesClassifier(BayesNetClassifier):
    """Naive Bayes over discretised features, in float32 or in tables of 1 to 8 bits.

    Parameters
    ----------
    objective : {"likelihood", "hybrid", "margin", "cross_entropy"}, default="likelihood"
        What the tables are trained for. "likelihood": smoothed relative frequencies, in one pass, then rounded to the
        number format. The others train by gradient, under the quantiser if there is one: "margin" the smooth large
        margin ``max(0, 1/eta log sum_{c != y} exp(eta (gamma - s_y + s_c)))``, "hybrid" the likelihood plus
        `margin_weight` times that (the published objective), "cross_entropy" the likelihood of the class alone.
        Contrast tables (`n_bits` alone) hold no likelihood: there "hybrid" is an error.
    margin : float > 0, default=3.0
        gamma, in nats of the score. The most worthwhile parameter to search; larger ones regularise, and help where
        the tables have many entries or few bits.
    margin_weight : float > 0, default=100.0
        Weight of the margin term of "hybrid".
    margin_sharpness : float > 0, default=10.0
        eta: how close the smooth maximum over the wrong classes is to the maximum.
    alpha : float > 0, default=1.0
        Pseudo-count of each table cell and of each class (Laplace / Lidstone smoothing).
    n_bits : int in 1..8, default=None
        Bits of a table entry. Alone it means contrast tables: rows of scores up to a constant, the class prior folded
        in, with one common step chosen on the training rows. With `integer_bits` it means the fixed-point format of
        log-probabilities. Without any of the three the tables are float32.
    integer_bits : int or "auto", default=None
        Integer bits of the fixed-point format ``-u / 2^fraction_bits``; "auto" takes the best of 0..6 on the training
        rows and needs `n_bits`.
    fraction_bits : int, default=None
        Fraction bits, possibly negative; given with `integer_bits` and without `n_bits`, sum in 1..8.
    table_format : {"auto", "log_prob", "contrast"}, default="auto"
        "auto" follows from the bits; the others state what is expected, and contradictions are errors.
    discretizer : "mdlp", None or transformer, default="mdlp"
        How features become codes. "mdlp": `MDLPDiscretizer`, supervised. None: X holds codes, integers from 0 (columns
        of levels, see `categorical_features`, are numbered). A transformer is cloned and fitted by `fit`, used as it
        is by `partial_fit`, and must give one integer code per feature.
    max_bins : int, default=None
        Limit on the bins of a feature with ``discretizer="mdlp"``; None is no limit but the MDL stop.
    n_states : int or array-like of shape (n_features,), default=None
        Number of codes of each feature, for when training does not see them all; None takes what the discretizer
        declares, or the largest code plus one. Columns of levels have as many states as levels.
    categorical_features : "from_dtype", None or array-like, default="from_dtype"
        Columns that hold levels, not numbers: those of categorical or text dtype in a DataFrame, none, or a mask,
        indices or names. A given transformer reads the columns itself.
    missing : {"drop", "state", "marginalize", "error"}, default="drop"
        "drop": NaN is allowed; rows count where they are known, and a missing value drops the factors that read it.
        "state": a feature with missing values in training has one more state for them, with table rows of its own.
        "marginalize": features that others depend on are summed out of float tables (Python only; for naive Bayes the
        same as "drop").
        Values that training did not see are treated so in either case.
    class_weight : dict or "balanced", default=None
        Factors on the weights of the rows by class; "balanced" gives every class the same total.
    init : {"random", "likelihood", "float"}, default="random"
        Where gradient training starts: near 0; at the likelihood solution, which was better on small data sets; or at
        float tables trained first in the same way, for twice the time (on letter a little better at 2 and 3 bits).
        Float tables themselves start near 0 with "float".
    max_iter : int, default=40
        Epochs of gradient training.
    batch_size : int or "auto", default="auto"
        Rows of a mini-batch; "auto" is a thirtieth of the rows, but 10 at least and 100 at most.
    learning_rate_init : float, default=0.03
        Learning rate of Adam in the first epoch; it falls log-linearly to a thousandth of it in the last one.
    early_stopping : bool, default=False
        Hold out `validation_fraction` of the rows (by class), stop when their accuracy has not improved by more than
        `tol` for `n_iter_no_change` epochs, and keep the tables of the best epoch.
    validation_fraction : float, default=0.1
        Also what ``integer_bits="auto"`` holds out to choose by.
    n_iter_no_change : int, default=10
    tol : float, default=1e-4
    warm_start : bool, default=False
        Go on from the tables, bins and structure of the previous `fit` (gradient training only).
    verbose : bool, default=False
        Print the loss of each epoch.
    random_state : int, RandomState instance or None, default=None
        Starting values, order of the rows and held-out rows of gradient training.
    n_jobs : int, default=None
        Threads for counting, training and prediction; the model and its predictions do not depend on it.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Only if X has string column names.
    discretizer_ : fitted transformer or None
    categories_ : list or None
        Levels of each column if ``discretizer=None`` and X has columns of levels; None for columns of codes.
    n_states_ : int64 ndarray of shape (n_features,)
        Number of states r_i; the code r_i means missing.
    has_missing_state_ : bool ndarray of shape (n_features,)
        Features whose last state is "missing".
    parents_ : int64 ndarray of shape (n_features,)
        All -1.
    class_count_ : float64 ndarray of shape (n_classes,)
    counts_ : list of float64 ndarrays of shape (r_i, n_classes)
        Weight of the rows behind each table entry.
    class_log_prior_ : float32 ndarray of shape (n_classes,)
        Start of every score; zeros for contrast tables.
    log_tables_ : list of float32 ndarrays of shape (r_i, n_classes)
        What each state of a feature adds to the scores; derived from the codes in quantised models.
    table_format_ : {"log_prob", "contrast"}
    n_bits_, integer_bits_, fraction_bits_ : int or None
        Number format; None in float models, the last two also for contrast tables.
    scale_ : float or None
        Value of one unit of a code. "log_prob" codes are costs, ``L = -scale_ u``; "contrast" codes are larger for
        likelier classes, ``(u - (2^n_bits - 1) / 2) scale_``.
    codes_ : list of uint8 ndarrays or None
        The tables of a quantised model. `predict` compares their integer sums.
    prior_codes_ : uint8 ndarray of shape (n_classes,) or None
        None in float models and contrast tables.
    n_parameters_ : int
        ``C + sum_i r_i C``, the papers' size measure.
    loss_curve_ : list of float
        Mean loss of each epoch; empty for the likelihood.
    validation_scores_ : list of float
        Accuracy on the held-out rows after each epoch; empty without early stopping.
    n_iter_ : int
        Epochs trained; 1 for the likelihood, which needs one pass.

    See Also
    --------
    TANClassifier : Lets every feature depend on one other feature.
    sklearn.naive_bayes.CategoricalNB : The float model over given codes.

    Notes
    -----
    Float scores are float32 sums in the order prior, feature 0, feature 1, ...; in quantised models sums are integers.
    Ties go to the lowest class index.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from effml.bayes import NaiveBayesClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> model = NaiveBayesClassifier(n_bits=2).fit(X, y)
    >>> model.predict(X[::50]).tolist(), model.n_parameters_
    ([0, 1, 2], 39)
    """

    def __init__(
        self,
        *,
        objective="likelihood",
        margin=3.0,
        margin_weight=100.0,
        margin_sharpness=10.0,
        alpha=1.0,
        n_bits=None,
        integer_bits=None,
        fraction_bits=None,
        table_format="auto",
        discretizer="mdlp",
        max_bins=None,
        n_states=None,
        categorical_features="from_dtype",
        missing="drop",
        class_weight=None,
        init="random",
        max_iter=40,
        batch_size="auto",
        learning_rate_init=0.03,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
        tol=1e-4,
        warm_start=False,
        verbose=False,
        random_state=None,
        n_jobs=None,
    ):
        self.objective = objective
        self.margin = margin
        self.margin_weight = margin_weight
        self.margin_sharpness = margin_sharpness
        self.alpha = alpha
        self.n_bits = n_bits
        self.integer_bits = integer_bits
        self.fraction_bits = fraction_bits
        self.table_format = table_format
        self.discretizer = discretizer
        self.max_bins = max_bins
        self.n_states = n_states
        self.categorical_features = categorical_features
        self.missing = missing
        self.class_weight = class_weight
        self.init = init
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.verbose = verbose
        self.random_state = random_state
        self.n_jobs = n_jobs

    def _learn_parents(self, codes, y_index, weights):
        return np.full(codes.shape[1], -1, dtype=np.int64)

    @classmethod
    def _with_structure(cls, parents, n_states):
        if (parents >= 0).any():
            raise ValueError("the network has edges between features; TANClassifier.from_pgmpy takes it")
        return cls(discretizer=None, n_states=n_states)


class TANClassifier(BayesNetClassifier):
    """Tree-augmented naive Bayes: every feature may depend on one other feature besides the class.

    Parameters
    ----------
    structure : {"cmi", "random", "learned"} or array-like of shape (n_features,), default="cmi"
        "cmi": the tree of largest class-conditional mutual information, root feature 0 (Chow-Liu). "random": a random
        tree in the order of the features. "learned": parents chosen by gradient together with tables, by the objective
        and `size_penalty`; the tables are then trained again on the chosen structure. An array gives the parent of each
        feature, -1 for none, -2 for no table at all.
    candidate_parents : {"informative", "all", "random", "nearest"}, default="informative"
        Among which earlier features "learned" chooses: the `n_candidates` of largest class-conditional mutual
        information, all, random ones, or the nearest pixels of an image of `image_shape`.
    n_candidates : int, default=8
    ordering : None, "cmi" or array-like of shape (n_features,), default=None
        Only earlier features can be parents, so every choice is acyclic. None is the order of the columns, "cmi" the
        breadth-first order of the Chow-Liu tree.
    image_shape : (int, int), default=None
        Rows and columns of the image, for ``candidate_parents="nearest"``.
    size_penalty : float >= 0, default=0.0
        Loss per table entry in "learned": larger ones give fewer and smaller tables.
    drop_features : bool, default=False
        Whether "learned" may leave a feature without a table, so that a budget can buy fewer features.
    structure_max_iter : int, default=None
        Epochs of structure learning; None takes `max_iter`.
    objective : {"likelihood", "hybrid", "margin", "cross_entropy"}, default="likelihood"
        What the tables are trained for, see `NaiveBayesClassifier`.
    margin, margin_weight, margin_sharpness : float > 0, default=3.0, 100.0, 10.0
        Margin gamma, weight lambda and sharpness eta of the objective, see `NaiveBayesClassifier`.
    alpha : float > 0, default=1.0
        Pseudo-count of each table cell and of each class (Laplace / Lidstone smoothing).
    n_bits : int in 1..8, default=None
        Bits of a table entry. Alone it means contrast tables: rows of scores up to a constant, the class prior folded
        in, with one common step chosen on the training rows. With `integer_bits` it means the fixed-point format of
        log-probabilities. Without any of the three the tables are float32.
    integer_bits : int or "auto", default=None
        Integer bits of the fixed-point format ``-u / 2^fraction_bits``; "auto" takes the best of 0..6 on the training
        rows and needs `n_bits`.
    fraction_bits : int, default=None
        Fraction bits, possibly negative; given with `integer_bits` and without `n_bits`, sum in 1..8.
    table_format : {"auto", "log_prob", "contrast"}, default="auto"
        "auto" follows from the bits; the others state what is expected, and contradictions are errors.
    discretizer : "mdlp", None or transformer, default="mdlp"
        How features become codes, see `NaiveBayesClassifier`.
    max_bins : int, default=None
        Limit on the bins of a feature with ``discretizer="mdlp"``; None is no limit but the MDL stop.
    n_states : int or array-like of shape (n_features,), default=None
        Number of codes of each feature, see `NaiveBayesClassifier`.
    categorical_features : "from_dtype", None or array-like, default="from_dtype"
        Columns that hold levels, not numbers, see `NaiveBayesClassifier`.
    missing : {"drop", "state", "marginalize", "error"}, default="drop"
        "drop": NaN is allowed; rows count where a feature and its parent are known, and a missing or unseen value drops
        the factors that read it. The others: see `NaiveBayesClassifier`.
    class_weight : dict or "balanced", default=None
        Factors on the weights of the rows by class; "balanced" gives every class the same total.
    init, max_iter, batch_size, learning_rate_init, warm_start, verbose
        Gradient training, see `NaiveBayesClassifier`.
    early_stopping, validation_fraction, n_iter_no_change, tol
        Gradient training, see `NaiveBayesClassifier`.
    random_state : int, RandomState instance or None, default=None
        Used by ``structure="random"`` and "learned" and by gradient training.
    n_jobs : int, default=None
        Threads for structure, counting and prediction; the model and its predictions do not depend on it.

    Attributes
    ----------
    parents_ : int64 ndarray of shape (n_features,)
        Parent of each feature, -1 for none, -2 for a feature without a table.
    counts_, log_tables_, codes_ : lists of ndarrays of shape (r_i, n_classes) or (r_i, r_parent, n_classes)
        As in `NaiveBayesClassifier`, the second for features with a parent.
    n_parameters_ : int
        ``C + sum_i r_i r_pa(i) C``, the papers' size measure.
    classes_, n_features_in_, feature_names_in_, discretizer_, categories_, n_states_, class_count_, class_log_prior_
        As in `NaiveBayesClassifier`.
    table_format_, n_bits_, integer_bits_, fraction_bits_, scale_, prior_codes_
        As in `NaiveBayesClassifier`.

    See Also
    --------
    NaiveBayesClassifier : The same without dependences between features.

    Notes
    -----
    N. Friedman, D. Geiger, M. Goldszmidt, "Bayesian network classifiers", Machine Learning 29, 1997.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from effml.bayes import TANClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> model = TANClassifier(max_bins=3).fit(X, y)
    >>> model.parents_.tolist(), model.predict(X[::50]).tolist()
    ([-1, 0, 0, 2], [0, 1, 2])
    """

    _parameter_constraints: ClassVar[dict] = {
        **BayesNetClassifier._parameter_constraints,
        "structure": [StrOptions({"cmi", "random", "learned"}), "array-like"],
        "candidate_parents": [StrOptions(set(CANDIDATES))],
        "n_candidates": [Interval(Integral, 1, None, closed="left")],
        "ordering": [None, StrOptions({"cmi"}), "array-like"],
        "image_shape": [None, tuple, list],
        "size_penalty": [Interval(Real, 0, None, closed="left")],
        "drop_features": ["boolean"],
        "structure_max_iter": [None, Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        *,
        structure="cmi",
        candidate_parents="informative",
        n_candidates=8,
        ordering=None,
        image_shape=None,
        size_penalty=0.0,
        drop_features=False,
        structure_max_iter=None,
        objective="likelihood",
        margin=3.0,
        margin_weight=100.0,
        margin_sharpness=10.0,
        alpha=1.0,
        n_bits=None,
        integer_bits=None,
        fraction_bits=None,
        table_format="auto",
        discretizer="mdlp",
        max_bins=None,
        n_states=None,
        categorical_features="from_dtype",
        missing="drop",
        class_weight=None,
        init="random",
        max_iter=40,
        batch_size="auto",
        learning_rate_init=0.03,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
        tol=1e-4,
        warm_start=False,
        verbose=False,
        random_state=None,
        n_jobs=None,
    ):
        self.structure = structure
        self.candidate_parents = candidate_parents
        self.n_candidates = n_candidates
        self.ordering = ordering
        self.image_shape = image_shape
        self.size_penalty = size_penalty
        self.drop_features = drop_features
        self.structure_max_iter = structure_max_iter
        self.objective = objective
        self.margin = margin
        self.margin_weight = margin_weight
        self.margin_sharpness = margin_sharpness
        self.alpha = alpha
        self.n_bits = n_bits
        self.integer_bits = integer_bits
        self.fraction_bits = fraction_bits
        self.table_format = table_format
        self.discretizer = discretizer
        self.max_bins = max_bins
        self.n_states = n_states
        self.categorical_features = categorical_features
        self.missing = missing
        self.class_weight = class_weight
        self.init = init
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.verbose = verbose
        self.random_state = random_state
        self.n_jobs = n_jobs

    def _learn_parents(self, codes, y_index, weights):
        if not isinstance(self.structure, str):
            try:
                return check_parents(self.structure, codes.shape[1])
            except (TypeError, ValueError) as error:
                raise type(error)(f"structure={self.structure!r} is no structure of this table: {error}") from None
        if self.structure == "random":
            return random_parents(codes.shape[1], self.random_state)
        if self.structure == "learned":
            return self._learn_structure(codes, y_index, weights)
        information = self._information(codes, y_index, weights)
        return chow_liu_parents(information, connect=False)  # an edge that tells nothing costs table rows

    def _information(self, codes, y_index, weights):
        return conditional_mutual_information(
            codes,
            y_index,
            n_states=self.n_states_,
            n_classes=len(self.classes_),
            sample_weight=weights,
            n_jobs=self.n_jobs,
        )

    def _learn_structure(self, codes, y_index, weights):
        random_state = check_random_state(self.random_state)
        n_features, information = codes.shape[1], None
        if self.candidate_parents == "informative" or self._ordering_is("cmi"):
            information = self._information(codes, y_index, weights)
        if self.ordering is None:
            ordering = np.arange(n_features)
        elif self._ordering_is("cmi"):
            ordering = breadth_first_order(chow_liu_parents(information))
        else:
            ordering = check_ordering(self.ordering, n_features)
        image_shape = check_image_shape(self.image_shape, n_features) if self.candidate_parents == "nearest" else None
        candidates = candidate_parents(
            self.candidate_parents,
            self.n_candidates,
            ordering,
            self.n_states_,
            information=information,
            image_shape=image_shape,
            random_state=random_state,
        )
        learned = learn_structure(
            codes,
            y_index,
            weights,
            candidates=candidates,
            n_states=self.n_states_,
            n_classes=len(self.classes_),
            objective=self._objective_terms(),
            schedule=self._schedule(self.structure_max_iter or self.max_iter),
            size_penalty=self.size_penalty,
            may_drop=self.drop_features,
            random_state=random_state,
        )
        return learned.parents

    def _ordering_is(self, name):
        return isinstance(self.ordering, str) and self.ordering == name

    @classmethod
    def _with_structure(cls, parents, n_states):
        return cls(structure=parents, discretizer=None, n_states=n_states)
