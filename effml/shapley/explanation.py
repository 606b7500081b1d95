"""What explainers return: Shapley values of rows with their standard errors."""

from dataclasses import dataclass, field
from html import escape

import numpy as np

_MAX_HTML_PLAYERS = 50


@dataclass(frozen=True, eq=False)
class ShapleyExplanation:
    """Shapley values of rows.

    Attributes
    ----------
    values : array (n_rows, n_features[, n_outputs])
        With groups of columns, features are groups. Without the last axis where the model returns a vector.
    base_values : array (n_rows[, n_outputs])
        v(empty): the mean output over the background.
    standard_errors : array like `values`
        0 where the value is exact, NaN where the budget gave no second draw to compare with. The bias of "owen" and
        "owen_halved" is not in them.
    n_evaluations : int array (n_rows,)
        Distinct coalitions evaluated; each costs one model row for each background row.
    method : tuple of str (n_rows)
        Estimator taken for each row.
    feature_names : list of str
    data : array (n_rows, n_columns) or None
        The explained rows.
    interactions : array (n_rows, n_features, n_features[, n_outputs]) or None
        With ``interactions=True``: off the diagonal the Shapley interaction index of each pair (Grabisch and Roubens,
        1999), on it what is left of the Shapley value without half of its pairs. The diagonal and each pair once add
        up to the sum of `values` (the 2-SII of shapiq).

    Examples
    --------
    >>> import numpy as np
    >>> from effml.shapley import MultilinearShapleyExplainer
    >>> explanation = MultilinearShapleyExplainer(lambda X: X @ [1.0, 2.0], np.zeros((1, 2)))([[3.0, 4.0]])
    >>> explanation.values, explanation.base_values
    (array([[3., 8.]]), array([0.]))
    """

    values: np.ndarray
    base_values: np.ndarray
    standard_errors: np.ndarray
    n_evaluations: np.ndarray
    method: tuple
    feature_names: list
    data: np.ndarray | None = field(default=None, repr=False)
    interactions: np.ndarray | None = field(default=None, repr=False)

    def __len__(self):
        return len(self.values)

    def importances(self, output=None):
        """Return the mean absolute value of each feature over the rows, (n_features,).

        Parameters
        ----------
        output : int, optional
            Which output; by default the absolute values of all outputs are averaged.
        """
        values = np.abs(self._of_output(self.values, output))
        return values.mean(axis=tuple(k for k in range(values.ndim) if k != 1))

    def _of_output(self, array, output):
        if output is None:
            return array
        n_outputs = array.shape[2] if array.ndim == 3 else 1
        if not -n_outputs <= output < n_outputs:
            raise ValueError(f"output={output}: expected an output number below {n_outputs}")
        return array[:, :, output] if array.ndim == 3 else array

    def to_shap(self):
        """Return a `shap.Explanation` with the same numbers, for the plots of shap.

        Raises
        ------
        ImportError
            If shap is not installed.
        """
        try:
            import shap
        except ImportError as error:
            raise ImportError('to_shap() needs shap: pip install "shap>=0.46"') from error
        data = self.data if self.data is not None and self.data.shape[1] == self.values.shape[1] else None
        return shap.Explanation(
            self.values,
            base_values=self.base_values,
            data=data,
            feature_names=list(self.feature_names),
            error_std=self.standard_errors,
        )

    def plot_bar(self, row=None, *, output=None, max_features=20, ax=None):
        """Draw the values of one row with two standard errors, or the mean absolute values of all rows.

        Parameters
        ----------
        row : int, optional
            None: all rows.
        output : int, optional
            Which output; needed for a row of several outputs.
        max_features : int, default=20
            The largest ones are drawn.
        ax : matplotlib axes, optional

        Returns
        -------
        ax : matplotlib axes
        """
        try:
            import matplotlib.pyplot as plt
        except ImportError as error:
            raise ImportError('plot_bar() needs matplotlib: pip install "effml[plot]"') from error
        if row is None:
            length, error, label = self.importances(output), None, "mean |Shapley value|"
        else:
            if output is None and self.values.ndim == 3:
                raise ValueError(f"output=None: expected one of 0, ..., {self.values.shape[2] - 1} for a single row")
            length = self._of_output(self.values, output)[row]
            error, label = 2 * self._of_output(self.standard_errors, output)[row], "Shapley value"
        shown = np.argsort(-np.abs(length), kind="stable")[:max_features][::-1]
        if ax is None:
            ax = plt.figure(figsize=(6, 1 + 0.3 * len(shown)), layout="constrained").subplots()
        colours = np.where(length[shown] >= 0, "tab:red", "tab:blue")
        ax.barh(np.arange(len(shown)), length[shown], xerr=None if error is None else error[shown], color=colours)
        ax.set_yticks(np.arange(len(shown)), [self.feature_names[j] for j in shown])
        ax.set_xlabel(label)
        ax.axvline(0, color="black", linewidth=0.8)
        return ax

    def _repr_html_(self):
        """Return the mean absolute values as an HTML table with bars, the largest first."""
        importances = self.importances()
        top = importances.max(initial=0) or 1.0
        order = np.argsort(-importances, kind="stable")[:_MAX_HTML_PLAYERS]
        body = "".join(
            f"<tr><td>{escape(str(self.feature_names[j]))}</td><td>{importances[j]:.4g}</td>"
            f'<td><div style="background:#c44;height:0.8em;width:{120 * importances[j] / top:.0f}px"></div></td></tr>'
            for j in order
        )
        evaluations = int(self.n_evaluations.sum())
        return (
            f"<div>Shapley values of {len(self)} rows, {len(self.feature_names)} features, {evaluations} coalitions"
            f"<table><tr><th>feature</th><th>mean |value|</th><th></th></tr>{body}</table></div>"
        )
