"""Models whose score is a polynomial of few players at a time, so that its multilinear extension can be integrated.

effml's own models are read from their lowered Program, scikit-learn's from their fitted attributes (float64), and a
Program from its integers. A pipeline has a closed form where each column behind its transformers is a function of one
raw column. What has none raises `NoClosedForm`, which says why.
"""

from dataclasses import dataclass, replace
from inspect import getattr_static

import numpy as np
from sklearn.pipeline import Pipeline

from effml.program import Program
from effml.shapley.lowered import program_pieces
from effml.shapley.terms import Additive, NoClosedForm, Piece, Tables, TreeSum

__all__ = ["SCORES", "ClosedForm", "NoClosedForm", "closed_form", "method_of"]

SCORES = ("predict_proba", "decision_function", "predict", "predict_joint_log_proba")
"""Outputs that may have a closed form."""


@dataclass(frozen=True, eq=False)
class ClosedForm:
    """A score as a sum of terms, up to a constant.

    Attributes
    ----------
    pieces : list of Piece
    """

    pieces: list

    def shapley(self, inputs, background, player, n_players, interactions=False):
        """Return exact interventional Shapley values.

        Parameters
        ----------
        inputs, background : array or DataFrame
            As the model takes them.
        player : int array (n_columns,)
            Player of each raw column.
        n_players : int
        interactions : bool, default=False

        Returns
        -------
        values : array (n_rows, n_players, n_outputs)
        pairs : array (n_rows, n_players, n_players, n_outputs) or None
            Shapley interaction indices, zeros on the diagonal.
        """
        values, pairs = 0.0, 0.0 if interactions else None
        for piece in self.pieces:
            own, own_pairs = piece.term.shapley(
                piece.prepare(inputs), piece.prepare(background), player[piece.source], n_players, interactions
            )
            pick = slice(None) if piece.pick is None else piece.pick
            values = values + own[..., pick] * piece.scale
            if interactions:
                pairs = pairs + own_pairs[..., pick] * piece.scale
        if not np.isfinite(values).all():
            raise ValueError("X: the closed form gives NaN or infinity; the model takes no missing or infinite values")
        return values, pairs


def closed_form(model, output) -> ClosedForm:
    """Return the closed form of an output of a model.

    Parameters
    ----------
    model : fitted estimator, Pipeline, search or Program
    output : {"predict_proba", "decision_function", "predict", "predict_joint_log_proba"}

    Raises
    ------
    NoClosedForm
        If there is none.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LinearRegression
    >>> from effml.shapley.closed_form import closed_form
    >>> model = LinearRegression().fit([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [0.0, 2.0, 3.0])
    >>> values, _ = closed_form(model, "predict").shapley(np.ones((1, 2)), np.zeros((1, 2)), np.arange(2), 2)
    >>> values[0, :, 0].round(9)
    array([2., 3.])
    """
    model = _found(model)
    try:
        if isinstance(model, Program):
            return ClosedForm(program_pieces(model, _program_output(model, output)))
        if type(_last(model)).__module__.startswith("effml."):
            return ClosedForm(_own_pieces(model, output))
        piece = _sklearn_piece(_last(model), output)
        return ClosedForm([piece if not isinstance(model, Pipeline) else _behind(model, piece)])
    except NoClosedForm as error:
        raise NoClosedForm(f"{type(_last(model)).__name__}.{output} has no closed form: {error}") from None


def method_of(model, output):
    """Return the function of rows that gives an output of an estimator or Program, None where it has none."""
    if isinstance(model, Program):
        try:
            return _run(model, _program_output(model, output))
        except NoClosedForm:
            return None
    found = _found(model)
    if output == "predict_joint_log_proba" and isinstance(found, Pipeline):  # pipelines do not hand it on
        method, transform = getattr(_last(found), output, None), _transform_of(found)
        return method and (lambda X: method(transform(X)))
    return getattr(found if output == "predict_joint_log_proba" else model, output, None)


def _run(program, name):
    output = program.outputs[name]

    def run(X):
        values = (program.run(program.encode(X))[name].astype(np.float64) - output.zero_point) * output.scale
        return values[:, 0] if values.shape[1] == 1 else values

    return run


def _program_output(program, output):
    """Return the name of a Program's output that is what the method `output` of an estimator gives."""
    name = {"predict_proba": "proba", "predict": "value"}.get(output, "score")
    if name not in program.outputs:
        raise NoClosedForm(f"the Program has no output {name!r}, only {sorted(program.outputs)}")
    return name


def _found(model):
    """Return the best estimator of a search, anything else as it is."""
    while hasattr(model, "best_estimator_"):
        model = model.best_estimator_
    return model


def _last(model):
    """Return what predicts at the end of pipelines."""
    while isinstance(model, Pipeline):
        model = _found(model.steps[-1][1])
    return model


def _own_pieces(model, output):
    """Return the pieces of the Program of a model of effml."""
    from effml.export import lower  # the registry above all families: on first use only
    from effml.program import LoweringError

    if output == "predict" and hasattr(_last(model), "classes_"):
        raise NoClosedForm("predict gives labels")
    try:
        program = lower(model)
    except LoweringError as error:
        raise NoClosedForm(str(error)) from None
    return program_pieces(program, _program_output(program, output))


def _behind(pipeline, piece):
    """Return a piece of the last step as one of the pipeline."""
    from effml.export import frame_of
    from effml.program import LoweringError

    try:
        _, frame, _ = frame_of(pipeline)
    except LoweringError as error:
        raise NoClosedForm(str(error)) from None
    source = np.array([column.source for column in frame.columns], dtype=np.int64)
    transform = _transform_of(pipeline)
    return Piece(lambda X: piece.prepare(transform(X)), source[piece.source], piece.term)


def _transform_of(pipeline):
    inner, last = pipeline[:-1], _found(pipeline.steps[-1][1])

    def transform(X):
        out = inner.transform(X) if inner.steps else X
        return _transform_of(last)(out) if isinstance(last, Pipeline) else out

    return transform


# -- scikit-learn -----------------------------------------------------------------------------------------------------


def _sklearn_piece(model, output):
    from sklearn.utils.validation import check_is_fitted

    reader = _find(model, output)
    check_is_fitted(model)
    return Piece(_matrix, np.arange(model.n_features_in_), reader(model))


def _matrix(X):
    X = np.asarray(X.toarray() if hasattr(X, "toarray") else X)
    return X if X.dtype.kind == "f" else X.astype(np.float64)


def _find(model, output):
    """Return the reader of the nearest scikit-learn class whose methods the model's class did not override."""
    for base in type(model).__mro__:
        if not base.__module__.startswith("sklearn."):
            continue
        reader = next((read for (names, at), read in _READERS.items() if base.__name__ in names and at == output), None)
        if reader is None:
            continue
        methods = (output, "_joint_log_likelihood", "_raw_predict")
        changed = [m for m in methods if getattr_static(type(model), m, None) is not getattr_static(base, m, None)]
        if changed:
            raise NoClosedForm(f"{type(model).__name__} overrides {changed[0]} of {base.__name__}")
        return reader
    raise NoClosedForm("it is no sum of functions of one column each, nor of trees, that is known here")


def _linear(model):
    coef = model.coef_.toarray() if hasattr(model.coef_, "toarray") else np.asarray(model.coef_)
    return Additive.linear(np.atleast_2d(coef).astype(np.float64).T)


def _gaussian_nb(model):
    mean, variance = model.theta_.T, model.var_.T
    return Additive(lambda X: -((X[:, :, None] - mean) ** 2) / (2 * variance))


def _multinomial_nb(model):
    return Additive.linear(model.feature_log_prob_.T)


def _bernoulli_nb(model):
    log_odds = (model.feature_log_prob_ - np.log1p(-np.exp(model.feature_log_prob_))).T
    limit = model.binarize
    if limit is None:
        return Additive.linear(log_odds)
    return Additive(lambda X: np.where((limit < X)[:, :, None], log_odds, 0.0))


def _categorical_nb(model):
    tables = [np.pad(table.T, ((0, 1), (0, 0)))[:, None] for table in model.feature_log_prob_]
    return Tables(np.arange(len(tables)), np.full(len(tables), -1), tables)


def _trees(model, divisor=1, dtype=np.float32):
    from effml._trees import trees_of

    try:
        trees = trees_of(model)
    except ValueError as error:
        raise NoClosedForm(str(error)) from None
    return TreeSum(replace(trees, value=trees.value / (divisor or trees.n_trees)), dtype)


def _forest(model):
    return _trees(model, divisor=None)


def _boosting(model):
    from sklearn.dummy import DummyClassifier, DummyRegressor

    if not (isinstance(model.init_, str) or type(model.init_) in (DummyClassifier, DummyRegressor)):
        raise NoClosedForm(f"its trees start from init={model.init!r}, which is no constant")
    return _trees(model)


def _hist_boosting(model):
    if model.is_categorical_ is not None and model.is_categorical_.any():
        raise NoClosedForm("it reads categorical columns")
    if getattr(model, "loss", "") in ("poisson", "gamma"):
        raise NoClosedForm(f"with loss={model.loss!r} it predicts the exponential of a sum")
    return _trees(model, dtype=np.float64)


_LINEAR_REGRESSORS = (
    "ARDRegression",
    "BayesianRidge",
    "ElasticNet",
    "ElasticNetCV",
    "HuberRegressor",
    "Lars",
    "LarsCV",
    "Lasso",
    "LassoCV",
    "LassoLars",
    "LassoLarsCV",
    "LassoLarsIC",
    "LinearRegression",
    "LinearSVR",
    "MultiTaskElasticNet",
    "MultiTaskElasticNetCV",
    "MultiTaskLasso",
    "MultiTaskLassoCV",
    "OrthogonalMatchingPursuit",
    "OrthogonalMatchingPursuitCV",
    "QuantileRegressor",
    "Ridge",
    "RidgeCV",
    "SGDRegressor",
    "TheilSenRegressor",
)
_LINEAR_CLASSIFIERS = (
    "LinearDiscriminantAnalysis",
    "LinearSVC",
    "LogisticRegression",
    "LogisticRegressionCV",
    "PassiveAggressiveClassifier",
    "Perceptron",
    "RidgeClassifier",
    "RidgeClassifierCV",
    "SGDClassifier",
)
_READERS = {
    (_LINEAR_REGRESSORS, "predict"): _linear,
    (_LINEAR_CLASSIFIERS, "decision_function"): _linear,
    (("GaussianNB",), "predict_joint_log_proba"): _gaussian_nb,
    (("MultinomialNB", "ComplementNB"), "predict_joint_log_proba"): _multinomial_nb,
    (("BernoulliNB",), "predict_joint_log_proba"): _bernoulli_nb,
    (("CategoricalNB",), "predict_joint_log_proba"): _categorical_nb,
    (("DecisionTreeClassifier",), "predict_proba"): _trees,
    (("DecisionTreeRegressor",), "predict"): _trees,
    (("RandomForestClassifier", "ExtraTreesClassifier"), "predict_proba"): _forest,
    (("RandomForestRegressor", "ExtraTreesRegressor"), "predict"): _forest,
    (("GradientBoostingClassifier",), "decision_function"): _boosting,
    (("GradientBoostingRegressor",), "predict"): _boosting,
    (("HistGradientBoostingClassifier",), "decision_function"): _hist_boosting,
    (("HistGradientBoostingRegressor",), "predict"): _hist_boosting,
}
