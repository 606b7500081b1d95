"""An optimiser on disk: one npz archive without pickled objects, its member "state" a JSON text."""

import io
import json
from pathlib import Path

import numpy as np

from effml.itemsets.candidates import Pool
from effml.itemsets.itemset_regressor import ItemsetSparseBayesRegressor
from effml.itemsets.spaces import Space
from effml.persistence import write_whole

VERSION = 1
PARAMETERS = ("direction", "acquisition", "kappa", "xi", "n_initial", "refit_growth", "n_candidates")
NOWHERE = -1  # key of a measurement that is no row of the pool


def save(optimizer, path):
    """Write an optimiser to a file."""
    state = {
        "version": VERSION,
        "parameters": {name: _plain(getattr(optimizer, name), name) for name in PARAMETERS},
        "regressor": _regressor_parameters(optimizer.regressor),
        "seed": optimizer._seed,
        "n_asked": optimizer._n_asked,
        "fit_length": optimizer._fit_length,
    }
    n_columns = len(optimizer._where.names)
    arrays = {
        "rows": np.array(optimizer._rows).reshape(-1, n_columns),
        "values": np.array(optimizer._values, dtype=np.float64),
        "pending_rows": np.array(list(optimizer._pending.values())).reshape(-1, n_columns),
    }
    if isinstance(optimizer._where, Pool):
        state["pool"] = {"names": optimizer._where.names}
        arrays |= _pool_arrays(optimizer)
    else:
        state["space"] = optimizer._where.space.to_json()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, state=np.frombuffer(json.dumps(state).encode(), dtype=np.uint8), **arrays)
    path = Path(path)
    write_whole(path, buffer.getvalue())
    return path


def load(cls, path):
    """Return the optimiser of a file, an instance of `cls`."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        return _rebuilt(cls, json.loads(arrays["state"].tobytes()), arrays)
    except OSError:
        raise
    except Exception as error:  # a damaged archive or state can fail in any way, from BadZipFile to KeyError
        what = f"{type(error).__name__}: {error}"
        raise ValueError(f"{str(path)!r} is damaged or no saved ItemsetBayesOptimizer ({what}).") from error


def _rebuilt(cls, state, arrays):
    if state["version"] != VERSION:
        raise ValueError(f"its version is {state['version']}, this one reads {VERSION}")
    regressor = None if state["regressor"] is None else ItemsetSparseBayesRegressor(**state["regressor"])
    where = _pool_of(state, arrays) if "pool" in state else {"space": _dimensions(state["space"])}
    optimizer = cls(**where, regressor=regressor, random_state=state["seed"], **state["parameters"])
    if "pool" in state:
        keys, pending = ([None if k == NOWHERE else k for k in arrays[n].tolist()] for n in ("keys", "pending_keys"))
    else:
        keys, pending = (optimizer._where.keys(arrays[name]) for name in ("rows", "pending_rows"))
    rows, values = arrays["rows"], arrays["values"].tolist()
    if not len(keys) == len(rows) == len(values) or len(pending) != len(arrays["pending_rows"]):
        raise ValueError("its points and values differ in number")
    optimizer._keys, optimizer._rows, optimizer._values = list(keys), list(rows), values
    optimizer._pending = dict(zip(pending, arrays["pending_rows"], strict=True))
    optimizer._n_asked, optimizer._fit_length = int(state["n_asked"]), int(state["fit_length"])
    return optimizer


def _dimensions(content):
    space = Space.from_json(content)
    return dict(zip(space.names, space.dimensions, strict=True))


def _pool_arrays(optimizer):
    where = optimizer._where
    keys = [NOWHERE if key is None else key for key in optimizer._keys]
    levels = {f"levels_{j}": found for j, found in enumerate(where.levels) if found is not None}
    return levels | {
        "pool": where.rows,
        "categorical": where.categorical,
        "keys": np.array(keys, dtype=np.int64),
        "pending_keys": np.array(list(optimizer._pending), dtype=np.int64),
    }


def _pool_of(state, arrays):
    levels = [arrays.get(f"levels_{j}") for j in range(len(state["pool"]["names"]))]
    return {"pool": Pool.of(arrays["pool"], state["pool"]["names"], arrays["categorical"], levels)}


def _regressor_parameters(regressor):
    if regressor is None:
        return None
    parameters = regressor.get_params()
    parameters.pop("categorical_features")  # the optimiser's own
    return {name: _plain(value, f"regressor's {name}") for name, value in parameters.items()}


def _plain(value, name):
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"{name}={value!r} cannot be saved; a number, text or None can")
