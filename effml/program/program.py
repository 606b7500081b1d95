"""A fitted model as a list of typed steps: run it, price it, prune it, save it."""

import dataclasses
import hashlib
import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from effml.program.buffers import INPUT_DTYPES, RAW, Buffer, InputSpec, Output
from effml.program.steps.base import STEP_TYPES, Step

__all__ = ["Program"]

FORMAT_VERSION = 1


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Program:
    """Topologically ordered steps over single-assignment buffers, from one raw row to named outputs.

    Attributes
    ----------
    inputs : tuple of InputSpec
        One per raw column.
    input_dtype : {"float32", "int32", "int16", "uint8"}
        Type of the raw row.
    steps : tuple of Step
    outputs : dict of str to Output
        "label" (class number), "score", "proba", "value", ...
    classes : tuple or None
        Class labels in the order of the class numbers.
    source : str
        The Python expression of the estimator it came from, for documentation.
    notes : tuple of str
        What a user of the C must know (for example how far float results may differ).
    """

    inputs: tuple[InputSpec, ...]
    steps: tuple[Step, ...]
    outputs: dict[str, Output]
    input_dtype: str = "float32"
    classes: tuple | None = None
    source: str = ""
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self):
        if self.input_dtype not in INPUT_DTYPES:
            raise ValueError(f"input_dtype={self.input_dtype!r} must be one of {list(INPUT_DTYPES)}")
        known = {RAW}
        for step in self.steps:
            missing = [name for name in step.inputs if name not in known]
            if missing or step.output.name in known:
                problem = f"reads {missing} before it is written" if missing else "writes a buffer twice"
                raise ValueError(f"step {step!r} {problem}")
            known.add(step.output.name)
        for name, output in self.outputs.items():
            if output.buffer not in known:
                raise ValueError(f"output {name!r} reads the unknown buffer {output.buffer!r}")

    # -- meaning ------------------------------------------------------------------------------------------------------

    def run(self, X) -> dict[str, np.ndarray]:
        """Return every output for raw rows in the declared input type: the reference the C is proven against.

        Parameters
        ----------
        X : ndarray of shape (n_rows, n_inputs)
            Numbers of `input_dtype`, categorical columns as codes (:meth:`encode` makes them). Any bit pattern is fine.

        Returns
        -------
        dict of str to ndarray of shape (n_rows, size)
        """
        X = np.asarray(X)
        if X.ndim != 2 or X.shape[1] != len(self.inputs):
            raise ValueError(f"X has shape {X.shape}; expected (n_rows, {len(self.inputs)})")
        if X.dtype != np.dtype(self.input_dtype):
            raise TypeError(f"X has dtype {X.dtype}; this program reads {self.input_dtype} (Program.encode converts)")
        values = {RAW: X}
        for step in self.steps:
            values[step.output.name] = step.run(*(values[name] for name in step.inputs))
        return {name: values[output.buffer] for name, output in self.outputs.items()}

    def encode(self, X) -> np.ndarray:
        """Return `X`, an array or DataFrame as the estimator takes it, as raw rows of the declared input type.

        Unknown or missing levels of a categorical column get the code one past its last level. A ValueError says where
        the columns of a DataFrame have other names, or another order, than those the model was fitted to.
        """
        from effml._columns import encode_table

        _check_column_names(X, self.column_names)
        categories = [None if spec.categories is None else np.asarray(spec.categories) for spec in self.inputs]
        X = _without_unused(X, self.inputs)
        wide = np.float64 if self.input_dtype != "float32" else np.float32
        matrix = np.asarray(encode_table(X, categories, dtype=wide))
        if matrix.ndim != 2 or matrix.shape[1] != len(self.inputs):
            raise ValueError(f"X has shape {matrix.shape}; the model reads {len(self.inputs)} columns")
        for column, levels in enumerate(categories):
            if levels is not None:
                known = matrix[:, column] >= 0
                matrix[:, column] = np.where(known, matrix[:, column], len(levels))
        return _cast(matrix, self.input_dtype, self.inputs)

    def labels(self, X) -> np.ndarray:
        """Return the class labels of raw rows."""
        return np.asarray(self.classes)[self.run(X)["label"][:, 0]]

    # -- structure ----------------------------------------------------------------------------------------------------

    @property
    def column_names(self) -> list[str] | None:
        """Names of the raw columns; None where the model was fitted to an array and knows none."""
        names = [spec.name for spec in self.inputs]
        return None if names == [f"x{position}" for position in range(len(names))] else names

    @property
    def buffers(self) -> dict[str, Buffer]:
        raw = Buffer(RAW, INPUT_DTYPES[self.input_dtype], max(len(self.inputs), 1))
        return {RAW: raw, **{step.output.name: step.output for step in self.steps}}

    def replace(self, **changes) -> "Program":
        return dataclasses.replace(self, **changes)

    @property
    def main_output(self) -> str:
        """What `predict` gives: "label" of a classifier, else the first output ("value" of a regressor)."""
        return "label" if "label" in self.outputs else next(iter(self.outputs))

    def with_outputs(self, *names: str) -> "Program":
        """Return the program that computes only these outputs, without the steps they do not need."""
        unknown = [name for name in names if name not in self.outputs]
        if unknown or not names:
            raise ValueError(f"outputs={names!r} must be some of {sorted(self.outputs)}")
        outputs = {name: self.outputs[name] for name in names}
        needed = {output.buffer for output in outputs.values()}
        kept = []
        for step in reversed(self.steps):
            if step.output.name in needed:
                kept.append(step)
                needed.update(step.inputs)
        return self.replace(steps=tuple(reversed(kept)), outputs=outputs)

    def __repr__(self):
        lines = [f"Program of {len(self.steps)} steps on {len(self.inputs)} columns of {self.input_dtype}"]
        lines += [f"  {step!r}" for step in self.steps]
        lines += [f"  {name} <- {output.buffer}" for name, output in self.outputs.items()]
        return "\n".join(lines)

    # -- files --------------------------------------------------------------------------------------------------------

    def save(self, path) -> None:
        """Write the program as one file: versioned JSON and the arrays as npy members, no pickle."""
        arrays: dict[str, np.ndarray] = {}
        tree = _to_json(self, arrays)
        path = Path(path)
        partial = path.with_name(path.name + ".partial")
        try:
            with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("program.json", json.dumps({"format": FORMAT_VERSION, "program": tree}, indent=1))
                for name, array in arrays.items():
                    with archive.open(f"{name}.npy", "w") as member:
                        np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    @staticmethod
    def is_saved_in(path) -> bool:
        """Return whether a file is one that :meth:`save` wrote."""
        try:
            with zipfile.ZipFile(path) as archive:
                return "program.json" in archive.namelist()
        except (OSError, zipfile.BadZipFile):
            return False

    @staticmethod
    def load(path) -> "Program":
        """Read a program that :meth:`save` wrote; anything else raises ValueError.

        No code of the file runs, but its numbers are taken as they are: C made from a file that somebody changed may
        read beside its tables.
        """
        try:
            with zipfile.ZipFile(path) as archive:
                document = json.loads(archive.read("program.json"))
                found = document["format"]

                def array(name):
                    with archive.open(f"{name}.npy") as member:
                        return np.lib.format.read_array(member, allow_pickle=False)

                program = _from_json(document["program"], array) if found == FORMAT_VERSION else None
        except OSError:
            raise
        except Exception as error:  # a damaged file can fail in any way
            raise ValueError(f"{path} is not an effml program, or damaged: {error}") from error
        if found != FORMAT_VERSION:
            raise ValueError(f"{path}: program format {found!r}; this effml reads {FORMAT_VERSION}")
        if not isinstance(program, Program):
            raise ValueError(f"{path} holds a {type(program).__name__}, no effml program")
        return program

    def fingerprint(self) -> str:
        """Return a hash of everything that decides the predictions."""
        arrays: dict[str, np.ndarray] = {}
        digest = hashlib.sha256(json.dumps(_to_json(self, arrays), sort_keys=True).encode())
        for array in arrays.values():
            digest.update(f"{array.dtype.str}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]


def _check_column_names(X, expected):
    """Raise where a DataFrame's columns are not those the model was fitted to, in their order."""
    given = list(getattr(X, "columns", ()))
    if expected is None or len(given) != len(expected) or not all(isinstance(name, str) for name in given):
        return
    wrong = [position for position, name in enumerate(expected) if given[position] != name]
    if wrong:
        how = "are in another order" if sorted(given) == sorted(expected) else "have other names"
        raise ValueError(
            f"the columns of X {how} than those that the model was fitted to: "
            f"column {wrong[0]} is {given[wrong[0]]!r}, accepted is {expected[wrong[0]]!r}"
        )


def _without_unused(X, inputs):
    """Return X with zeros in the columns that the model does not read and that could hold text."""
    unused = [position for position, spec in enumerate(inputs) if not spec.used]
    if not unused or getattr(X, "shape", (0, 0))[1:] != (len(inputs),):
        return X
    if hasattr(X, "iloc"):
        return X.assign(**{X.columns[position]: 0.0 for position in unused})
    X = np.array(X, copy=True)
    X[:, unused] = 0
    return X


def _cast(matrix, dtype, inputs):
    if dtype == "float32":
        return np.ascontiguousarray(matrix, dtype=np.float32)
    info = np.iinfo(dtype)
    bad = ~((matrix >= info.min) & (matrix <= info.max) & (matrix == np.trunc(matrix)))  # NaN is bad, too
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise ValueError(
            f"input_dtype={dtype!r} cannot hold {matrix[row, column]} of column {inputs[column].name!r} "
            f"(row {row}); accepted are whole numbers from {info.min} to {info.max}"
        )
    return np.ascontiguousarray(matrix.astype(dtype))


_CLASSES = {cls.__name__: cls for cls in (Program, Buffer, InputSpec, Output)}


def _to_json(value, arrays):
    """Return dataclasses, tuples, arrays and scalars as JSON; arrays are put aside under a number."""
    if isinstance(value, np.ndarray):
        arrays[f"a{len(arrays)}"] = value
        return {"array": f"a{len(arrays) - 1}"}
    if dataclasses.is_dataclass(value):
        name = value.kind if isinstance(value, Step) else type(value).__name__
        fields = {f.name: _to_json(getattr(value, f.name), arrays) for f in dataclasses.fields(value)}
        return {"type": name, "fields": fields}
    if isinstance(value, tuple | list):
        return [_to_json(item, arrays) for item in value]
    if isinstance(value, dict):
        return {"dict": {key: _to_json(item, arrays) for key, item in value.items()}}
    return value.item() if isinstance(value, np.generic) else value


def _from_json(value, array):
    if isinstance(value, list):
        return tuple(_from_json(item, array) for item in value)
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return array(value["array"])
    if "dict" in value:
        return {key: _from_json(item, array) for key, item in value["dict"].items()}
    cls = STEP_TYPES.get(value["type"]) or _CLASSES[value["type"]]
    return cls(**{key: _from_json(item, array) for key, item in value["fields"].items()})
