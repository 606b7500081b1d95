"""What a coalition of features is worth.

A value function takes rows to explain and coalitions, and returns ``values`` (n_coalitions, n_rows, n_outputs).
`InterventionalGame` keeps the features of the players present and takes the others from background rows, averaged:
v(S) = mean over b of f(x_S, b_rest). One background row is a baseline.
"""

import numpy as np

from effml._cext.masked_rows import masked_rows

OUTPUTS = ("auto", "predict_proba", "decision_function", "predict")


def predict_function(model, output="auto"):
    """Return the function of a 2-D array that is explained.

    Parameters
    ----------
    model : callable or estimator
        A callable is taken as it is.
    output : {"auto", "predict_proba", "decision_function", "predict"}, default="auto"
        Method of the estimator; "auto" takes the first it has, in this order.

    Raises
    ------
    TypeError
        If the model is neither callable nor has such a method.
    ValueError
        If `output` is unknown or the estimator lacks it.
    """
    if output not in OUTPUTS:
        raise ValueError(f"output={output!r}: expected one of {', '.join(map(repr, OUTPUTS))}")
    if output != "auto":
        if not hasattr(model, output):
            raise ValueError(f"output={output!r}: {type(model).__name__} has no such method")
        return getattr(model, output)
    for name in OUTPUTS[1:]:
        if hasattr(model, name):
            return getattr(model, name)
    if callable(model):
        return model
    raise TypeError(
        f"model={type(model).__name__}: expected a callable or an estimator with predict_proba, "
        "decision_function or predict"
    )


def column_groups(features, n_columns, names=None):
    """Return the column numbers of every player, and the names of the players.

    Parameters
    ----------
    features : None, dict {name: columns} or sequence of columns
        Columns are one column or several, as numbers or names. None: every column is a player. Columns that are not
        mentioned are an error: they would keep the values of the explained row or of the background unseen.
    n_columns : int
    names : sequence of str, optional
        Names of the columns.

    Raises
    ------
    ValueError
        If a column is unknown, named twice, or left out.
    """
    labels = [f"x{j}" for j in range(n_columns)] if names is None else [str(name) for name in names]
    if features is None:
        return [np.array([j]) for j in range(n_columns)], labels
    items = list(features.items()) if isinstance(features, dict) else [(None, columns) for columns in features]
    position = {name: j for j, name in enumerate(labels)}
    groups, players = [], []
    for name, columns in items:
        columns = [columns] if isinstance(columns, str) or np.ndim(columns) == 0 else list(columns)
        group = []
        for column in columns:
            number = position.get(column, -1) if isinstance(column, str) else int(column)
            if not 0 <= number < n_columns:
                raise ValueError(f"features: column {column!r} is unknown; the background has {n_columns} columns")
            group.append(number)
        groups.append(np.array(group, dtype=np.int64))
        players.append(str(name) if name is not None else ", ".join(labels[j] for j in group))
    used = np.concatenate(groups) if groups else np.zeros(0, dtype=np.int64)
    if len(used) != n_columns or len(np.unique(used)) != n_columns:
        raise ValueError(f"features: every one of the {n_columns} columns must belong to exactly one group")
    return groups, players


def as_matrix(X, name, like=None):
    """Return X as a C-contiguous float32 or float64 array (n_rows, n_columns), the column names and the frame type.

    Raises ValueError naming the parameter where X is not numeric, not 2-D, empty, or (given `like`) has other columns.
    """
    columns = getattr(X, "columns", None)
    columns = None if columns is None else [str(column) for column in columns]
    try:
        array = np.asarray(X)
        if array.dtype != np.float32:
            array = array.astype(np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected numbers in every column") from None
    if array.ndim == 1:
        array = array[None, :]
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(f"{name}: expected an array (n_rows, n_columns), got shape {array.shape}")
    if like is not None:
        n_columns, names = like
        if array.shape[1] != n_columns:
            raise ValueError(f"{name} has {array.shape[1]} columns, the background has {n_columns}")
        if columns is not None and names is not None and columns != list(names):
            raise ValueError(f"{name} has columns {columns}, the background has {list(names)}")
    return np.ascontiguousarray(array), columns


def check_values(values, n_rows, what):
    """Return the output of a model or game as float64 (n_rows, n_outputs).

    Raises ValueError where it has another number of rows, is not numeric, or holds NaN or infinity.
    """
    values = np.asarray(values)
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{what} returned {values.dtype} values: Shapley values need numbers (probabilities, margins)")
    values = values.astype(np.float64, copy=False)
    if values.ndim not in (1, 2) or len(values) != n_rows:
        raise ValueError(f"{what} returned shape {values.shape} for {n_rows} rows; expected (n_rows[, n_outputs])")
    if not np.isfinite(values).all():
        raise ValueError(f"{what} returned NaN or infinity for {np.count_nonzero(~np.isfinite(values))} values")
    return values.reshape(n_rows, -1)


class InterventionalGame:
    """Value of coalitions of features: the mean output with the absent features taken from background rows.

    Parameters
    ----------
    predict : callable
        Takes rows (n, n_columns) and returns (n,) or (n, n_outputs).
    background : array-like (n_background, n_columns)
        One row is a baseline. A DataFrame is passed on to `predict` as a DataFrame.
    features : dict or sequence, optional
        Groups of columns that act as one player, see `column_groups`.
    batch_size : int, default=4096
        Most rows in one call of `predict`.

    Attributes
    ----------
    n_players : int
    player_names : list of str
    squeeze : bool or None
        Whether `predict` returns one value a row as a vector; None before its first call.

    Examples
    --------
    >>> import numpy as np
    >>> from effml.shapley import InterventionalGame
    >>> game = InterventionalGame(lambda X: X[:, 0] * X[:, 1], [[0.0, 1.0]])
    >>> game(np.array([[2.0, 3.0]]), np.array([[False, False], [True, False], [True, True]]))[:, 0, 0]
    array([0., 2., 6.])
    """

    def __init__(self, predict, background, *, features=None, batch_size=4096):
        self.predict = predict
        self.background, self._names = as_matrix(background, "background")
        if len(self.background) == 0:
            raise ValueError("background: expected at least one row")
        self._frame = type(background) if self._names is not None else None
        self.batch_size = batch_size
        self._groups, self.player_names = column_groups(features, self.background.shape[1], self._names)
        self.n_players = len(self._groups)
        self.squeeze = None

    def rows(self, X):
        """Return X as an array with the columns of the background."""
        return as_matrix(X, "X", like=(self.background.shape[1], self._names))[0]

    def active(self, rows):
        """Return which players differ from some background row, bool (n_rows, n_players); the others are worth 0."""
        dtype = np.result_type(rows, self.background)
        rows, background = rows.astype(dtype, copy=False), self.background.astype(dtype, copy=False)
        constant = (background == background[0]).all(axis=0) | np.isnan(background).all(axis=0)
        same = constant & ((rows == background[0]) | (np.isnan(rows) & np.isnan(background[0])))
        return np.stack([~same[:, group].all(axis=1) for group in self._groups], axis=1)

    def __call__(self, rows, coalitions):
        """Return the values of coalitions (m, n_players) for rows (r, n_columns): float64 (m, r, n_outputs)."""
        dtype = np.result_type(rows, self.background)
        rows = np.ascontiguousarray(rows, dtype=dtype)
        background = np.ascontiguousarray(self.background, dtype=dtype)
        present = np.zeros((len(coalitions), rows.shape[1]), dtype=np.uint8)
        for player, group in enumerate(self._groups):
            present[:, group] = coalitions[:, player, None]
        n_pairs = len(rows) * len(present)
        step = max(1, self.batch_size // len(background))
        values = [
            self._mean_outputs(rows, background, present, p, min(step, n_pairs - p)) for p in range(0, n_pairs, step)
        ]
        values = np.concatenate(values)  # row by row, coalitions within
        return values.reshape(len(rows), len(present), -1).transpose(1, 0, 2)

    def _mean_outputs(self, rows, background, present, first, count):
        total = 0.0
        for begin in range(0, len(background), self.batch_size):
            part = background[begin : begin + self.batch_size]
            inputs = np.empty((count, len(part), rows.shape[1]), dtype=rows.dtype)
            masked_rows(rows, part, present, first, inputs)
            outputs = self._outputs(inputs.reshape(count * len(part), -1))
            total = total + outputs.reshape(count, len(part), -1).sum(axis=1)
        return total / len(background)

    def _outputs(self, inputs):
        outputs = self.predict(inputs if self._frame is None else self._frame(inputs, columns=self._names))
        self.squeeze = np.ndim(outputs) == 1
        return check_values(outputs, len(inputs), "model")


class CoalitionGame:
    """A game given as a function of coalitions.

    Parameters
    ----------
    function : callable
        Takes coalitions, bool (m, n_players), and returns values (m,) or (m, n_outputs).
    n_players : int

    Examples
    --------
    >>> from effml.shapley import CoalitionGame, shapley_values
    >>> game = CoalitionGame(lambda S: S.all(axis=1), 4)
    >>> shapley_values(game, method="exact").values
    array([0.25, 0.25, 0.25, 0.25])
    """

    def __init__(self, function, n_players):
        if not callable(function):
            raise TypeError(f"function={function!r}: expected a callable over coalitions")
        if n_players < 1:
            raise ValueError(f"n_players={n_players}: expected at least 1")
        self.function = function
        self.n_players = n_players
        self.squeeze = None

    def __call__(self, coalitions):
        """Return the values of coalitions (m, n_players): float64 (m, n_outputs)."""
        values = self.function(coalitions)
        self.squeeze = np.ndim(values) == 1
        return check_values(values, len(coalitions), "game")
