"""The public face: which source a name comes from, and what to say when there is none."""

from effml.datasets import _files, _remote


def load_dataset(name, *, split=None):
    """Load a data set by name.

    Looked for in this order: ``name.npz`` in the folder that the environment variable ``EFFML_DATA`` names; the sets
    that ship with scikit-learn; OpenML, through :func:`sklearn.datasets.fetch_openml` (downloaded once, then cached).

    Parameters
    ----------
    name : str
        One of :func:`list_datasets`.
    split : None, int or str, default=None
        None: the official split where there is one. An integer: that fold of a published cross-validation, its rows
        as the test part. A string: another published split of that name, such as ``"dsf"`` for magic.

    Returns
    -------
    data : sklearn.utils.Bunch
        With the attributes

        - ``data`` (n_samples, n_features) and ``target`` (n_samples,): all rows; classes are integers from 0
        - ``X_train``, ``y_train``, ``X_test``, ``y_test``: the parts of the split, each None without one
        - ``feature_names``, ``class_names``: lists of str (``class_names`` is None for regression)
        - ``categorical``: bool mask (n_features,) of the columns that hold category codes
        - ``name``, ``task``, ``source`` and ``description``
        - whatever else the source offers: ``groups``, ``sample_shape``, ``category_levels``, ...

    Raises
    ------
    ValueError
        If `name` or `split` is unknown.
    FileNotFoundError
        If the set is in no local folder and cannot be downloaded; the message says what to do offline.

    Examples
    --------
    >>> from effml.datasets import load_dataset
    >>> digits = load_dataset("digits")
    >>> digits.data.shape, digits.data.dtype.name, len(digits.class_names)
    ((1797, 64), 'uint8', 10)
    """
    folder = _files.data_folder()
    if folder is not None and _is_plain(name) and (path := folder / f"{name}.npz").is_file():
        content = _files.read(path)
        if not any(wanted <= content.keys() for wanted in _files.FORMS):
            raise ValueError(f"{path.name} holds no data set: neither X, y nor X_train, y_train, X_test, y_test.")
        bunch, source = _files.to_bunch(name, content, split), "file"
        bunch.setdefault("description", f"{name}: {_shape_in_words(bunch)}.")
    else:
        source = list_datasets().get(name) if isinstance(name, str) else None
        if source is None:
            raise ValueError(f"name={name!r} is no known data set; accepted: {', '.join(list_datasets())}.")
        if split is not None:
            raise ValueError(f"split={split!r} is unknown for data set {name!r} from {source}; accepted: None.")
        bunch = _remote.load_sklearn(name) if source == "scikit-learn" else _download(name)
    bunch.source = source
    return bunch


def list_datasets():
    """List the data sets that :func:`load_dataset` knows here.

    Returns
    -------
    sources : dict of str to str
        Name to source, sorted by name. The source is ``"file"`` (in the folder of ``EFFML_DATA``),
        ``"scikit-learn"`` (ships with it) or ``"OpenML"`` (a download).

    Examples
    --------
    >>> from effml.datasets import list_datasets
    >>> list_datasets()["digits"]
    'scikit-learn'
    """
    folder = _files.data_folder()
    sources = dict.fromkeys(_remote.OPENML, "OpenML") | dict.fromkeys(_remote.SKLEARN, "scikit-learn")
    if folder is not None:
        sources |= dict.fromkeys(_files.names_in(folder), "file")
    return dict(sorted(sources.items()))


def _is_plain(name):
    return isinstance(name, str) and name.replace("_", "").isalnum()


def _download(name):
    try:
        return _remote.load_openml(name)
    except OSError as error:  # URLError and time-outs are OSErrors
        variable, data_id = _files.ENVIRONMENT_VARIABLE, _remote.OPENML[name][0]
        raise FileNotFoundError(
            f"Data set {name!r} is in no folder named by {variable} and could not be downloaded from OpenML "
            f"(data_id={data_id}): {error}. Offline, set {variable} to a folder that holds {name}.npz with the arrays "
            "X, y (or X_train, y_train, X_test, y_test) and, if known, feature_names, categorical and class_names."
        ) from error


def _shape_in_words(bunch):
    n_samples, n_features = bunch.data.shape
    classes = f", {len(bunch.class_names)} classes" if bunch.class_names else ""
    return f"{n_samples} rows, {n_features} features{classes}, {bunch.get('task', 'unknown task')}"
