"""scikit-learn's transformers as maps on the columns of a Frame; none of them becomes code of its own."""

import numpy as np

from effml.program.frame import Column, Frame, LoweringError, discrete_column

__all__ = [
    "binner",
    "column_transformer",
    "cut_columns",
    "feature_union",
    "imputer",
    "one_hot",
    "ordinal",
    "scaler",
    "selector",
    "supervised_bins",
]


def _check_width(transformer, frame):
    if transformer.n_features_in_ != len(frame.columns):
        name = type(transformer).__name__
        raise LoweringError(f"{name} was fitted on {transformer.n_features_in_} columns and gets {len(frame.columns)}")


def _increasing(transformer, frame, affine=None) -> Frame:
    """Send every column through a per-feature increasing transformer; `affine` gives (scale, offset) arrays or None."""
    _check_width(transformer, frame)
    columns = []
    for position, column in enumerate(frame.columns):
        if column.is_discrete:
            columns.append(column.with_values(_through_table(transformer, position, column.values)))
            continue
        composed = None
        if affine is not None and column.affine is not None:
            scale, offset = float(affine[0][position]), float(affine[1][position])
            composed = (column.affine[0] * scale, column.affine[1] * scale + offset)
        links = (*column.links, (transformer, position, position))
        columns.append(Column(column.source, links=links, affine=composed))
    return frame.with_columns(columns)


def _through_table(transformer, position, values):
    matrix = np.repeat(values[:, None], transformer.n_features_in_, axis=1)
    out = transformer.transform(matrix.astype(np.float64))
    return np.asarray(out)[:, position]


def scaler(transformer, frame) -> Frame:
    """StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler: increasing and affine."""
    n = len(frame.columns)
    name = type(transformer).__name__
    if name == "MinMaxScaler":
        affine = None if transformer.clip else (transformer.scale_, transformer.min_)
    elif name == "MaxAbsScaler":
        clipped = getattr(transformer, "clip", False)
        affine = None if clipped else (1 / transformer.scale_, np.zeros(n))
    else:
        centre = transformer.mean_ if name == "StandardScaler" else transformer.center_
        centred = transformer.with_mean if name == "StandardScaler" else transformer.with_centering
        scaled = transformer.scale_
        scale = np.ones(n) if scaled is None else 1 / np.asarray(scaled, dtype=np.float64)
        affine = (scale, -np.asarray(centre) * scale if centred else np.zeros(n))
    return _increasing(transformer, frame, affine)


def monotone(transformer, frame) -> Frame:
    """PowerTransformer, QuantileTransformer: increasing; only consumers that compare can follow."""
    return _increasing(transformer, frame)


def imputer(transformer, frame) -> Frame:
    """SimpleImputer: the identity but for a NaN; only consumers that compare can follow."""
    if transformer.add_indicator or not _is_nan(transformer.missing_values):
        raise LoweringError("SimpleImputer lowers with missing_values=nan and add_indicator=False only")
    if any(_is_nan(value) for value in transformer.statistics_):
        raise LoweringError("SimpleImputer drops columns that were empty in fit; remove them before")
    return _increasing(transformer, frame)


def _is_nan(value) -> bool:
    return isinstance(value, float | np.floating) and bool(np.isnan(value))


def selector(transformer, frame) -> Frame:
    """Every feature selector with `get_support`."""
    _check_width(transformer, frame)
    return frame.with_columns([frame.columns[k] for k in transformer.get_support(indices=True)])


def supervised_bins(transformer, frame) -> Frame:
    """The discretisers of effml: states by edges, or the levels of a categorical column."""
    _check_width(transformer, frame)
    columns = []
    numeric = [k for k, levels in enumerate(transformer.categories_) if levels is None]
    raw = dict(zip(numeric, cut_columns(frame, numeric, [transformer.bin_edges_[k] for k in numeric]), strict=True))
    for position, levels in enumerate(transformer.categories_):
        if levels is None:
            columns.append(raw[position])
        else:
            columns.append(frame.set_categories(position, levels))
    return frame.with_columns(columns)


def cut_columns(frame, positions, edges, last_inclusive=False):
    """Return discrete columns that count the edges below the value; a missing value is one past the last state.

    Parameters
    ----------
    frame : Frame
    positions : sequence of int
        Columns of the frame, numeric or discrete.
    edges : sequence of float64 arrays
        Ascending edges of each.

    Returns
    -------
    list of Column
    """
    numeric = [k for k in positions if not frame.columns[k].is_discrete]
    by_position = dict(zip(positions, edges, strict=True))
    limits = dict(zip(numeric, frame.raw_thresholds(numeric, [by_position[k] for k in numeric]), strict=True))
    missing = dict(zip(numeric, frame.missing_values(numeric), strict=True))
    columns = []
    for k in positions:
        column, cuts = frame.columns[k], np.asarray(by_position[k])
        if column.is_discrete:
            states = np.searchsorted(cuts, column.values, side="left")
            columns.append(column.with_values(np.where(np.isnan(column.values), len(cuts) + 1, states)))
            continue
        value = missing[k]
        unseen = len(cuts) + 1 if value is None or np.isnan(value) else int(np.searchsorted(cuts, value, side="left"))
        columns.append(discrete_column(column, limits[k], np.append(np.arange(len(cuts) + 1), unseen)))
    return columns


def binner(transformer, frame) -> Frame:
    """KBinsDiscretizer, ordinal or one-hot: a value equal to an edge belongs to the upper bin."""
    _check_width(transformer, frame)
    positions = range(len(frame.columns))
    # scikit-learn counts the inner edges e <= x; the largest float64 below e turns that into x > edge
    edges = [np.nextafter(transformer.bin_edges_[k][1:-1], -np.inf) for k in positions]
    columns = cut_columns(frame, list(positions), edges)
    if transformer.encode == "ordinal":
        return frame.with_columns(columns)
    return frame.with_columns(
        column.with_values(np.append(column.values[:-1] == state, False))
        for k, column in enumerate(columns)
        for state in range(int(transformer.n_bins_[k]))
    )


def ordinal(transformer, frame) -> Frame:
    """OrdinalEncoder; an unknown level must have a value of its own."""
    _check_width(transformer, frame)
    if transformer.handle_unknown == "error":
        unknown = len  # the Python path raises; C gives one past the last level
    else:
        value = float(transformer.unknown_value)
        unknown = lambda levels: value  # noqa: E731
    columns = []
    for position, levels in enumerate(transformer.categories_):
        column = frame.set_categories(position, _no_missing(transformer, levels))
        columns.append(column.with_values(np.append(column.values[:-1], unknown(levels))))
    return frame.with_columns(columns)


def one_hot(transformer, frame) -> Frame:
    """OneHotEncoder: each output column is a table over the levels, so a consumer sees an index, not a vector."""
    _check_width(transformer, frame)
    if transformer.handle_unknown == "infrequent_if_exist" or transformer.min_frequency or transformer.max_categories:
        raise LoweringError("OneHotEncoder lowers without infrequent categories only")
    columns = []
    for position, levels in enumerate(transformer.categories_):
        column = frame.set_categories(position, _no_missing(transformer, levels))
        dropped = None if transformer.drop_idx_ is None else transformer.drop_idx_[position]
        for number in range(len(levels)):
            if number != dropped:
                hit = np.append(column.values[:-1] == number, False)
                columns.append(column.with_values(hit))
    return frame.with_columns(columns)


def _no_missing(transformer, levels):
    if any(level is None or _is_nan(level) for level in levels):
        raise LoweringError(f"{type(transformer).__name__} learned a missing value as a category; impute it before")
    return levels


def column_transformer(transformer, frame) -> Frame:
    """ColumnTransformer: each part on its columns, side by side."""
    _check_width(transformer, frame)
    columns: list[Column] = []
    parts = {}
    for name, part, chosen in transformer.transformers_:
        parts[name] = [] if isinstance(part, str) and part == "drop" else _part(transformer, part, chosen, frame)
    for name in transformer.output_indices_:
        columns += parts.get(name, [])
    if all(not column.links and not column.is_discrete for column in frame.columns):
        read = {column.source for column in columns}
        for column in frame.columns:
            if column.source not in read:
                frame.builder.mark_unused(column.source)
    return frame.with_columns(columns)


def _part(transformer, part, chosen, frame) -> list[Column]:
    positions = _positions(transformer, chosen)
    selected = frame.with_columns([frame.columns[k] for k in positions])
    if not positions:
        return []
    if part == "passthrough" or (type(part).__name__ == "FunctionTransformer" and part.func is None):
        return selected.columns
    return selected.through(part).columns


def _positions(transformer, chosen) -> list[int]:
    n = transformer.n_features_in_
    if isinstance(chosen, slice):
        names = list(getattr(transformer, "feature_names_in_", []))
        if isinstance(chosen.start, str) or isinstance(chosen.stop, str):
            start = names.index(chosen.start) if chosen.start is not None else 0
            stop = names.index(chosen.stop) + 1 if chosen.stop is not None else n
            return list(range(n))[slice(start, stop, chosen.step)]
        return list(range(n))[chosen]
    chosen = [chosen] if isinstance(chosen, str | int | np.integer) else list(chosen)
    if chosen and all(isinstance(k, bool | np.bool_) for k in chosen):
        return [k for k, flag in enumerate(chosen) if flag]
    if chosen and isinstance(chosen[0], str):
        names = list(transformer.feature_names_in_)
        return [names.index(name) for name in chosen]
    return [int(k) % n for k in chosen]


def feature_union(transformer, frame) -> Frame:
    """FeatureUnion: all parts on the same columns, side by side."""
    if transformer.transformer_weights:
        raise LoweringError("FeatureUnion lowers without transformer_weights only")
    columns = []
    for _, part in transformer.transformer_list:
        if part != "drop":
            columns += frame.columns if part == "passthrough" else frame.through(part).columns
    return frame.with_columns(columns)
