"""How the gate weighs the kernels over two features. Matplotlib is imported when a plot is drawn."""

import numpy as np
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import check_is_fitted, validate_data

__all__ = ["plot_gate"]


def plot_gate(model, X, features=(0, 1), *, kernels=None, resolution=60, max_kernels=6):
    """Draw the weight of each kernel over two features, the others at the median of X.

    Parameters
    ----------
    model : fitted LocalizedMKLClassifier or LocalizedMKLRegressor
    X : array-like of shape (n_samples, n_features)
        Rows that set the range of the plot and are drawn as points.
    features : pair of int or str, default=(0, 1)
        Columns of the two axes.
    kernels : list of int, default=None
        Kernels to draw; None draws those of largest mean weight.
    resolution : int, default=60
        Grid cells along each axis.
    max_kernels : int, default=6

    Returns
    -------
    figure : matplotlib.figure.Figure

    Raises
    ------
    ImportError
        If matplotlib is missing.
    ValueError
        If `features` or `kernels` names what the model does not have.
    """
    check_is_fitted(model)
    names = list(getattr(model, "feature_names_in_", [f"x{k}" for k in range(model.n_features_in_)]))
    first, second = (_position(feature, names) for feature in features)
    rows = validate_data(model, X, reset=False, dtype=np.float64)
    chosen = _chosen(kernels, model, max_kernels)
    axes = [np.linspace(rows[:, k].min(), rows[:, k].max(), resolution) for k in (first, second)]
    grid = np.repeat(np.median(rows, axis=0)[None], resolution**2, axis=0)
    grid[:, first], grid[:, second] = (part.ravel() for part in np.meshgrid(*axes))
    weights = model._weights_of(grid.astype(np.float32))
    return _draw(model, rows, axes, weights, chosen, (first, second), names)


def _draw(model, rows, axes, weights, chosen, features, names):
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise ImportError('plots need matplotlib: pip install "effml[plot]"') from None
    figure = plt.figure(figsize=(4 * min(3, len(chosen)) + 1, 3.4 * -(-len(chosen) // 3)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(-(-len(chosen) // 3), min(3, len(chosen)))).ravel()
    points = _safe_indexing(rows, np.arange(0, len(rows), max(1, len(rows) // 300)))
    for panel, kernel in zip(panels, chosen, strict=False):
        image = panel.pcolormesh(*axes, weights[:, kernel].reshape(len(axes[1]), len(axes[0])), vmin=0, vmax=1)
        panel.plot(points[:, features[0]], points[:, features[1]], ".", color="white", markersize=2, alpha=0.6)
        panel.set(title=model.kernel_names_[kernel], xlabel=names[features[0]], ylabel=names[features[1]])
    for panel in panels[len(chosen) :]:
        panel.set_axis_off()
    figure.colorbar(image, ax=list(panels), label="weight of the kernel")
    return figure


def _position(feature, names):
    if isinstance(feature, str):
        if feature not in names:
            raise ValueError(f"features names the column {feature!r}, which the model does not have")
        return names.index(feature)
    if not 0 <= feature < len(names):
        raise ValueError(f"features names column {feature!r}; the model has columns 0 to {len(names) - 1}")
    return int(feature)


def _chosen(kernels, model, max_kernels):
    n_kernels = len(model.kernel_names_)
    if kernels is None:
        return np.sort(np.argsort(-model.kernel_weights_, kind="stable")[:max_kernels])
    chosen = np.atleast_1d(np.asarray(kernels))
    if chosen.dtype.kind not in "iu" or not len(chosen) or chosen.min() < 0 or chosen.max() >= n_kernels:
        raise ValueError(f"kernels={kernels!r} must be positions from 0 to {n_kernels - 1}")
    return chosen
