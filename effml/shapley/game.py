"""What a coalition of features is worth.

A value function takes rows to explain and coalitions, and returns ``values`` (n_coalitions, n_rows, n_outputs).
`InterventionalGame` keeps the features of the players present and takes the others from background rows, averaged:
v(S) = mean over b of f(x_S, b_rest). One background row is a baseline.
"""

import inspect

import numpy as np

from effml._cext.masked_rows import masked_rows
from effml.shapley.closed_form import SCORES, NoClosedForm, closed_form, method_of
from effml.shapley.frames import MixedRows, is_frame, is_plain, joined

OUTPUTS = ("auto", *SCORES)
_AUTO = SCORES[:3]  # log probabilities are explained on demand only


def predict_function(model, output="auto"):
    """Return the function of a 2-D array that is explained.

    Parameters
    ----------
    model : callable, estimator or Program
        A callable is taken as it is.
    output : {"auto", "predict_proba", "decision_function", "predict", "predict_joint_log_proba"}, default="auto"
        Method of the estimator; "auto" takes the first of the first three that it has. Of a Program, the output
        "proba", "score", "value" or again "score".

    Raises
    ------
    TypeError
        If the model is neither callable nor has such a method.
    ValueError
        If `output` is unknown or the estimator lacks it.
    """
    model, output = _estimator_of(model, output)
    names = _outputs_of(model, output)
    if names:
        return method_of(model, names[0])
    if callable(model):
        return model
    raise TypeError(
        f"model={type(model).__name__}: expected a callable or an estimator with predict_proba, "
        "decision_function or predict"
    )


def predict_and_form(model, output, method):
    """Return the function that is explained and its `ClosedForm`, None where another method is to be taken.

    With method "auto" the output is chosen as by `predict_function`; with "closed_form" and output "auto" it is the
    first that has a closed form, "predict_joint_log_proba" last.

    Raises
    ------
    NoClosedForm
        With method "closed_form", if there is none.
    """
    model, output = _estimator_of(model, output)
    if method not in ("auto", "closed_form"):
        return predict_function(model, output), None
    names = _outputs_of(model, output, every=method == "closed_form")
    if method == "auto":
        names = names[:1]
    elif not names:
        raise NoClosedForm(f"method='closed_form': model={type(model).__name__} is no estimator that can be read")
    reasons = []
    for name in names:
        try:
            return method_of(model, name), closed_form(model, name)
        except NoClosedForm as reason:
            reasons.append(str(reason))
    if method == "closed_form":
        raise NoClosedForm(f"method='closed_form': {'; '.join(reasons)}")
    return predict_function(model, output), None


def _estimator_of(model, output):
    """Return the estimator and output of a method like ``forest.predict_proba``, anything else as it is."""
    if output not in OUTPUTS:
        raise ValueError(f"output={output!r}: expected one of {', '.join(map(repr, OUTPUTS))}")
    owner = getattr(model, "__self__", None)
    if inspect.ismethod(model) and model.__name__ in SCORES and output == "auto" and not inspect.isclass(owner):
        return owner, model.__name__
    return model, output


def _outputs_of(model, output, every=False):
    """Return the outputs that a model has, of those that `output` stands for; one that is asked for must be there."""
    if output == "auto":
        return [name for name in (SCORES if every else _AUTO) if method_of(model, name)]
    if not method_of(model, output):
        raise ValueError(f"output={output!r}: {type(model).__name__} has no such method")
    return [output]


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
    """Return X as a C-contiguous float32 or float64 array (n_rows, n_columns), and the names of its columns.

    Raises ValueError naming the parameter where X is not numeric, not 2-D, empty, or (given `like`) has other columns.
    """
    columns = getattr(X, "columns", None)
    columns = None if columns is None else [str(column) for column in columns]
    try:
        array = np.asarray(X)
        if array.dtype != np.float32:
            array = array.astype(np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected numbers in every column, or a pandas DataFrame") from None
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


def mix(rows, background, present, first, count):
    """Return masked rows (count, n_background, n_columns) of the pairs (row, coalition) from number `first` on.

    Parameters
    ----------
    rows, background : array (n, n_columns)
        Of one type of 4 or 8 bytes, C-contiguous.
    present : uint8 array (n_coalitions, n_columns)
    first, count : int
        Pair p is row ``p // n_coalitions`` and coalition ``p % n_coalitions``.
    """
    bits = np.dtype(f"u{rows.itemsize}")
    mixed = np.empty((count, *background.shape), dtype=rows.dtype)
    scratch = np.empty((2, rows.shape[1]), dtype=bits)
    masked_rows(rows.view(bits), background.view(bits), present, first, scratch, mixed.view(bits))
    return mixed


class InterventionalGame:
    """Value of coalitions of features: the mean output with the absent features taken from background rows.

    Parameters
    ----------
    predict : callable
        Takes rows (n, n_columns) and returns (n,) or (n, n_outputs).
    background : array-like (n_background, n_columns) or DataFrame
        One row is a baseline. Of a pandas DataFrame, `predict` gets DataFrames with the same columns and dtypes.
    features : dict or sequence, optional
        Groups of columns that act as one player, see `column_groups`.
    batch_size : int, default=16384
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

    def __init__(self, predict, background, *, features=None, batch_size=16384):
        self.predict = predict
        self.batch_size = batch_size
        self.squeeze = None
        # Frames of one float type are mixed as one matrix, others by the numbers of their rows.
        self._frame = background if is_frame(background) else None
        self._by_number = self._frame is not None and background.shape[1] > 0 and not is_plain(background)
        if self._by_number:
            self._names = [str(name) for name in background.columns]
            self.background = np.repeat(np.arange(len(background))[:, None], background.shape[1], axis=1)
        else:
            if self._frame is None and hasattr(background, "columns"):
                raise TypeError(f"background={type(background).__name__}: expected an array or a pandas DataFrame")
            self.background, self._names = as_matrix(background, "background")
        if len(self.background) == 0:
            raise ValueError("background: expected at least one row")
        self._groups, self.player_names = column_groups(features, self.background.shape[1], self._names)
        self.n_players = len(self._groups)

    @property
    def player(self):
        """Player of each column, int array (n_columns,)."""
        player = np.empty(self.background.shape[1], dtype=np.int64)
        for number, group in enumerate(self._groups):
            player[group] = number
        return player

    def rows(self, X):
        """Return X with the columns of the background: an array, or MixedRows of DataFrames of several types."""
        if not self._by_number:
            return as_matrix(X, "X", like=(self.background.shape[1], self._names))[0]
        frame = joined(self._frame, X)
        numbers = np.arange(len(self._frame), len(frame))
        return MixedRows(frame, np.repeat(numbers[:, None], frame.shape[1], axis=1))

    def inputs(self, rows):
        """Return rows as the model takes them, an array or a DataFrame."""
        if self._by_number:
            return rows.to_frame()
        return rows if self._frame is None else type(self._frame)(rows, columns=self._frame.columns, copy=False)

    def background_inputs(self):
        """Return the background as the model takes it."""
        return self._frame if self._by_number else self.inputs(self.background)

    def active(self, rows):
        """Return which players differ from some background row, bool (n_rows, n_players); the others are worth 0."""
        if self._by_number:
            levels = rows.levels()
            rows, background = levels[rows.numbers[:, 0]], levels[: len(self.background)]
            same = (background == background[0]).all(axis=0) & (rows == background[0])
        else:
            dtype = np.result_type(rows, self.background)
            rows, background = rows.astype(dtype, copy=False), self.background.astype(dtype, copy=False)
            constant = (background == background[0]).all(axis=0) | np.isnan(background).all(axis=0)
            same = constant & ((rows == background[0]) | (np.isnan(rows) & np.isnan(background[0])))
        return np.stack([~same[:, group].all(axis=1) for group in self._groups], axis=1)

    def __call__(self, rows, coalitions):
        """Return the values of coalitions (m, n_players) for rows (r, n_columns): float64 (m, r, n_outputs)."""
        cells = rows.numbers if self._by_number else rows
        dtype = np.result_type(cells, self.background)
        cells = np.ascontiguousarray(cells, dtype=dtype)
        background = np.ascontiguousarray(self.background, dtype=dtype)
        present = np.ascontiguousarray(np.asarray(coalitions)[:, self.player], dtype=np.uint8)
        n_pairs = len(cells) * len(present)
        step = max(1, self.batch_size // len(background))
        values = [
            self._mean_outputs(rows, cells, background, present, p, min(step, n_pairs - p))
            for p in range(0, n_pairs, step)
        ]
        values = np.concatenate(values)  # row by row, coalitions within
        return values.reshape(len(cells), len(present), -1).transpose(1, 0, 2)

    def _mean_outputs(self, rows, cells, background, present, first, count):
        total = 0.0
        for begin in range(0, len(background), self.batch_size):
            part = background[begin : begin + self.batch_size]
            mixed = mix(cells, part, present, first, count).reshape(count * len(part), -1)
            outputs = self._outputs(rows.to_frame(mixed) if self._by_number else self.inputs(mixed))
            outputs = outputs.reshape(count, len(part), -1)
            # A product with ones, as sums over the middle axis are slow for few outputs.
            total = total + (outputs.sum(axis=1) if outputs.shape[2] == 1 else np.ones(len(part)) @ outputs)
        return total / len(background)

    def _outputs(self, inputs):
        outputs = self.predict(inputs)
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
