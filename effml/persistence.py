"""Fitted models on disk, through skops: no pickle, so that reading a file runs no code of its author.

skops writes a zip of arrays and a schema that names every type. It trusts scikit-learn's and numpy's own types; this
module adds effml's, by a fixed list, and refuses a file that names any other.
"""

import io
import json
import os
import tempfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
from sklearn.tree._tree import Tree

__all__ = ["TRUSTED_TYPES", "load_model", "save_model", "saved_input_dtype"]

_ABOUT = "effml.json"  # our member of the zip, beside skops' own: {"input_dtype": ...}
_INPUT_DTYPES = ("float32", "int32", "int16", "uint8")

_STEPS = ("activations.LiveWeights", "activations.Relu", "activations.Sigmoid", "binning.Bin", "forests.ForestWalk")
_STEPS += ("itemsets.ClippedAffine", "itemsets.ItemsetMatch", "itemsets.SquareRoot", "itemsets.SumSquares")
_STEPS += ("kernels.KernelRows", "kernels.SquaredDistances", "linear.Affine", "linear.Dense", "linear.QuantizeInput")
_STEPS += ("lookup.LookupSum", "outputs.ArgBest", "outputs.Gather", "outputs.Positive", "outputs.Select")
_STEPS += ("outputs.Softmax", "trees.TreeWalk", "neural.PackedDense", "neural.Requantise", "neural.Threshold")
_STEPS += ("images.Conv", "images.PackedConv")
_STEPS += ("elementwise.Exp", "elementwise.LogisticShares", "elementwise.LookupEach", "elementwise.MultiplyInput")
_STEPS += ("elementwise.WeightedAdd", "combining.Clip", "combining.Combine", "loops.Loop", "pooling.Join")
_STEPS += ("pooling.Pool", "recurrent.GatedSum", "recurrent.Normalise", "recurrent.Pieces")

_QUANTIZED = ("LinearClassifier", "LinearRegressor", "NetworkClassifier", "NetworkRegressor")

_KERNELS = ("bank.Group", "bank.KernelBank", "base_kernels.Polynomial", "base_kernels.RBF", "network.Network")
_KERNELS += ("estimators.LocalizedMKLClassifier", "estimators.LocalizedMKLRegressor")
_KERNELS += tuple(f"gates.{gate}" for gate in ("ConstantGate", "Gate", "RBFGate", "SigmoidGate", "SoftmaxGate"))

_NEURAL = ("inputs.InputFormat", "mlp.QuantizedMLPClassifier", "mlp.QuantizedMLPRegressor", "network.DenseArchitecture")
_NEURAL += ("conv.QuantizedConvClassifier", "network.ConvArchitecture", "optimizer.ClippedAdam")

TRUSTED_TYPES = frozenset(
    {
        *(f"effml.adapters.quantized.Quantized{name}" for name in _QUANTIZED),
        "effml.bayes.classifiers.NaiveBayesClassifier",
        "effml.bayes.classifiers.TANClassifier",
        "effml.discretization.bottleneck.BottleneckDiscretizer",
        "effml.discretization.mdlp.MDLPDiscretizer",
        "effml._trees.Trees",
        "effml.forests.classifiers.DecisionSnippetClassifier",
        "effml.forests.classifiers.SplittingStumpClassifier",
        "effml.forests.mining.Snippets",
        "effml.forests.regressor.DecisionSnippetRegressor",
        "effml.forests.transformer.DecisionSnippetTransformer",
        "effml._optim.Adam",
        "effml.itemsets.itemset_regressor.ItemsetSparseBayesRegressor",
        "effml.itemsets.sparse_bayes.SparseBayesRegressor",
        *(f"effml.kernels.{name}" for name in _KERNELS),
        *(f"effml.neural.{name}" for name in _NEURAL),
        "effml.program.buffers.Buffer",
        "effml.program.buffers.InputSpec",
        "effml.program.buffers.Output",
        "effml.program.program.Program",
        *(f"effml.program.steps.{step}" for step in _STEPS),
        *(f"sklearn.neural_network._stochastic_optimizers.{name}Optimizer" for name in ("Adam", "SGD")),
        "sklearn.tree._tree.Tree",  # skops leaves it out as its node links are not checked on reading; here they are
    }
)
"""The types that a model file may hold, beside those of scikit-learn, numpy and scipy that skops itself trusts."""


def save_model(est, path, *, input_dtype=None):
    """Write a fitted estimator to a file that :func:`load_model` reads.

    The file appears whole or not at all: it is written beside `path` under a temporary name, then renamed.

    Parameters
    ----------
    est : estimator
        A fitted estimator of effml or scikit-learn, pipelines included.
    path : str or path-like
        The file; by habit its name ends in ``.skops``. An existing one is replaced.
    input_dtype : {"float32", "int32", "int16", "uint8"}, default=None
        The type of the C's input row that the model was chosen for; :func:`saved_input_dtype` gives it back, and
        ``effml export`` and ``effml inspect`` use it.

    Returns
    -------
    path : pathlib.Path
        Where the model was written.

    Raises
    ------
    TypeError
        If `est` is no estimator, holds a torch module, or an object of another type that :func:`load_model` would
        refuse.
    ValueError
        If `input_dtype` is no input type.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from effml.persistence import load_model, save_model
    >>> X, y = load_iris(return_X_y=True)
    >>> tree = DecisionTreeClassifier(max_depth=2, random_state=0).fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save_model(tree, pathlib.Path(folder, "tree.skops"))
    ...     again = load_model(path)
    >>> bool((again.predict(X) == tree.predict(X)).all())
    True
    """
    from skops.io import dumps, get_untrusted_types

    if not hasattr(est, "fit") or isinstance(est, type):
        raise TypeError(f"est must be an estimator (an object with fit), got {type(est).__name__}.")
    if input_dtype is not None and input_dtype not in _INPUT_DTYPES:
        raise ValueError(f"input_dtype={input_dtype!r} must be one of {list(_INPUT_DTYPES)} or None")
    if _holds_torch(est):
        raise TypeError(
            f"{type(est).__name__} holds a torch module, which is no data alone. Save what it computes, "
            "effml.lower(est).save(path): effml export and effml inspect read it; or the module, by torch.save."
        )
    data = dumps(est, compression=zipfile.ZIP_DEFLATED)
    foreign = sorted(set(get_untrusted_types(data=data)) - TRUSTED_TYPES)
    if foreign:
        raise TypeError(f"The model holds types that load_model would refuse: {', '.join(foreign)}.")
    if input_dtype is not None:
        data = _with_member(data, _ABOUT, json.dumps({"input_dtype": input_dtype}))
    path = Path(path)
    write_whole(path, data)
    return path


def load_model(path):
    """Read an estimator that :func:`save_model` wrote.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    est : estimator

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, is no model file, or names a type outside the trusted list.
    """
    from skops.io import get_untrusted_types, load

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no model file {str(path)!r}.")
    try:
        foreign = sorted(set(get_untrusted_types(file=path)) - TRUSTED_TYPES)
        est = None if foreign else load(path, trusted=sorted(TRUSTED_TYPES))
        _check_trees(est)
    except OSError:
        raise
    except Exception as error:  # a damaged schema or array can fail in any way, from BadZipFile to KeyError
        raise _damaged(path, error) from error
    if foreign:
        raise ValueError(f"{str(path)!r} names types that are not trusted and was not loaded: {', '.join(foreign)}.")
    if not hasattr(est, "fit"):
        raise ValueError(f"{str(path)!r} holds an object of type {type(est).__name__}, no estimator.")
    return est


def saved_input_dtype(path):
    """Return the input type that a model file names, or None.

    Parameters
    ----------
    path : str or path-like
        A file that :func:`save_model` wrote.

    Returns
    -------
    input_dtype : str or None
        None for a file saved without one.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged or names no input type of effml.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from effml.persistence import save_model, saved_input_dtype
    >>> tree = DecisionTreeClassifier(max_depth=2, random_state=0).fit(*load_iris(return_X_y=True))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     saved_input_dtype(save_model(tree, pathlib.Path(folder, "tree.skops"), input_dtype="int16"))
    'int16'
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no model file {str(path)!r}.")
    try:
        with zipfile.ZipFile(path) as archive:
            about = json.loads(archive.read(_ABOUT)) if _ABOUT in archive.namelist() else None
    except OSError:
        raise
    except Exception as error:  # a damaged zip can fail in any way, as in load_model
        raise _damaged(path, error) from error
    if about is None:
        return None
    if not isinstance(about, dict) or about.get("input_dtype") not in _INPUT_DTYPES:
        raise ValueError(f"{str(path)!r} names no input type of effml in its {_ABOUT}: {about!r}.")
    return about["input_dtype"]


def _holds_torch(est):
    from effml.export import final_of

    final = final_of(est)
    return hasattr(final_of(getattr(final, "estimator_", final)), "export_module_")


def _damaged(path, error):
    what = "" if isinstance(error, zlib.error) else f"{type(error).__name__}: "
    return ValueError(f"{str(path)!r} is damaged or no model file of effml ({what}{error}).")


def _with_member(data, name, text):
    """Return the zip file `data` with one more member."""
    file = io.BytesIO(data)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, text)
    return file.getvalue()


def _check_trees(value):
    """Raise for a tree inside `value` whose links would make scikit-learn's loops read outside its arrays.

    scikit-learn numbers a child after its parent, so links that only go up also cannot form a cycle.
    """
    if isinstance(value, Tree):
        own = np.arange(value.node_count)
        left, right = value.children_left, value.children_right
        inner = left != -1
        linked = (left > own) & (right > own) & (left < value.node_count) & (right < value.node_count)
        known = (value.feature >= 0) & (value.feature < value.n_features)
        if not np.all(np.where(inner, linked & known, right == -1)):
            raise ValueError("a tree has links that lead out of it")
    elif isinstance(value, dict):
        for item in value.values():
            _check_trees(item)
    elif isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.dtype == object):
        for item in np.ravel(value) if isinstance(value, np.ndarray) else value:
            _check_trees(item)
    elif hasattr(value, "get_params") and not isinstance(value, type):
        _check_trees(vars(value))


def write_whole(path, data):
    """Write bytes to `path` so that a reader sees the old file or the new one, never a part."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {str(path.parent)!r} to write {path.name!r} to.")
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp's 0600 would keep colleagues from reading the model
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
