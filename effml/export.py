"""From a fitted estimator to its Program, its price, its C, and the proof that the C predicts the same.

Families and adapters register their lowering here under dotted class names; the code behind a name is imported on first
use. A subclass is accepted only while its `predict` / `transform` are those of the registered class.
"""

from dataclasses import dataclass
from importlib import import_module
from inspect import Parameter, getattr_static, signature
from pathlib import Path

from sklearn.utils.validation import check_is_fitted

from effml._compiled import Agreement, CompiledModel
from effml.adapters.layers import LAYERED, is_layered
from effml.program import (
    Builder,
    Column,
    Footprint,
    Frame,
    InputSpec,
    LoweringError,
    Program,
    footprint_of,
    generate_c,
    with_input_dtype,
    write_files,
)
from effml.program.cgen import INPUT_DTYPES
from effml.program.packages import package_files, self_test_source

__all__ = [
    "Agreement",
    "CompiledModel",
    "check_export",
    "compile_c",
    "footprint",
    "lower",
    "quantize",
    "to_c",
]

_FORESTS = "effml.adapters.forests"
_HIST = "sklearn.ensemble._hist_gradient_boosting.gradient_boosting"
_PREPROCESSING = "effml.adapters.preprocessing"
_TRANSFORMERS = {
    "sklearn.preprocessing._data.StandardScaler": f"{_PREPROCESSING}:scaler",
    "sklearn.preprocessing._data.MinMaxScaler": f"{_PREPROCESSING}:scaler",
    "sklearn.preprocessing._data.MaxAbsScaler": f"{_PREPROCESSING}:scaler",
    "sklearn.preprocessing._data.RobustScaler": f"{_PREPROCESSING}:scaler",
    "sklearn.preprocessing._data.PowerTransformer": f"{_PREPROCESSING}:monotone",
    "sklearn.preprocessing._data.QuantileTransformer": f"{_PREPROCESSING}:monotone",
    "sklearn.preprocessing._discretization.KBinsDiscretizer": f"{_PREPROCESSING}:binner",
    "sklearn.preprocessing._encoders.OneHotEncoder": f"{_PREPROCESSING}:one_hot",
    "sklearn.preprocessing._encoders.OrdinalEncoder": f"{_PREPROCESSING}:ordinal",
    "sklearn.impute._base.SimpleImputer": f"{_PREPROCESSING}:imputer",
    "sklearn.compose._column_transformer.ColumnTransformer": f"{_PREPROCESSING}:column_transformer",
    "sklearn.feature_selection._base.SelectorMixin": f"{_PREPROCESSING}:selector",
    "sklearn.pipeline.FeatureUnion": f"{_PREPROCESSING}:feature_union",
    "sklearn.pipeline.Pipeline": "effml.export:_pipeline_transformer",
    "effml.discretization.bottleneck.BottleneckDiscretizer": f"{_PREPROCESSING}:supervised_bins",
    "effml.discretization.mdlp.MDLPDiscretizer": f"{_PREPROCESSING}:supervised_bins",
}
_PREDICTORS = {
    "sklearn.ensemble._forest.ExtraTreesClassifier": f"{_FORESTS}:forest_classifier",
    "sklearn.ensemble._forest.ExtraTreesRegressor": f"{_FORESTS}:forest_regressor",
    "sklearn.ensemble._forest.RandomForestClassifier": f"{_FORESTS}:forest_classifier",
    "sklearn.ensemble._forest.RandomForestRegressor": f"{_FORESTS}:forest_regressor",
    "sklearn.ensemble._gb.GradientBoostingClassifier": f"{_FORESTS}:gradient_boosting_classifier",
    "sklearn.ensemble._gb.GradientBoostingRegressor": f"{_FORESTS}:gradient_boosting_regressor",
    f"{_HIST}.HistGradientBoostingClassifier": f"{_FORESTS}:hist_gradient_boosting_classifier",
    f"{_HIST}.HistGradientBoostingRegressor": f"{_FORESTS}:hist_gradient_boosting_regressor",
    "sklearn.tree._classes.DecisionTreeClassifier": "effml.adapters.trees:decision_tree",
    "sklearn.tree._classes.DecisionTreeRegressor": "effml.adapters.trees:decision_tree_regressor",
    **LAYERED,
    "sklearn.pipeline.Pipeline": "effml.export:_pipeline_predictor",
    "effml.adapters.quantized.QuantizedLinearClassifier": "effml.adapters.quantized:lower_quantized",
    "effml.adapters.quantized.QuantizedNetworkRegressor": "effml.adapters.quantized:lower_quantized",
    "effml.adapters.quantized.QuantizedNetworkClassifier": "effml.adapters.quantized:lower_quantized",
    "effml.adapters.quantized.QuantizedLinearRegressor": "effml.adapters.quantized:lower_quantized",
    "effml.bayes.classifiers.NaiveBayesClassifier": "effml.bayes.lowering:lower_classifier",
    "effml.bayes.classifiers.TANClassifier": "effml.bayes.lowering:lower_classifier",
    "effml.deep.estimators.TorchClassifier": "effml.deep.lowering:lower_classifier",
    "effml.deep.estimators.TorchRegressor": "effml.deep.lowering:lower_regressor",
    "effml.deep.quantized.QuantizedTorchClassifier": "effml.adapters.quantized:lower_quantized",
    "effml.deep.quantized.QuantizedTorchRegressor": "effml.adapters.quantized:lower_quantized",
    "effml.forests.classifiers.DecisionSnippetClassifier": "effml.forests.lowering:lower_classifier",
    "effml.forests.classifiers.SplittingStumpClassifier": "effml.forests.lowering:lower_classifier",
    "effml.forests.regressor.DecisionSnippetRegressor": "effml.forests.lowering:lower_regressor",
    "effml.itemsets.itemset_regressor.ItemsetSparseBayesRegressor": "effml.itemsets.lowering:itemset_regressor",
    "effml.kernels.estimators.LocalizedMKLClassifier": "effml.kernels.lowering:lower_classifier",
    "effml.kernels.estimators.LocalizedMKLRegressor": "effml.kernels.lowering:lower_regressor",
    "effml.neural.conv.QuantizedConvClassifier": "effml.neural.lowering:lower_classifier",
    "effml.neural.mlp.QuantizedMLPClassifier": "effml.neural.lowering:lower_classifier",
    "effml.neural.mlp.QuantizedMLPRegressor": "effml.neural.lowering:lower_regressor",
}

_PREDICTING = ("predict", "predict_proba", "decision_function")  # scikit-learn's predict may call the others


# -- lowering ---------------------------------------------------------------------------------------------------------


def lower(est, **options) -> Program:
    """Return the Program of a fitted estimator, Pipeline or search.

    Parameters
    ----------
    est : estimator
        Fitted. A fitted search lowers its `best_estimator_`.
    **options
        Passed to the lowering of the final estimator, for example ``layout="swar"`` for Bayesian classifiers,
        ``leaf_bits=8`` or ``layout="code"`` for forests (:class:`effml.adapters.forests.Options`).

    Returns
    -------
    Program

    Raises
    ------
    LoweringError
        A ValueError naming the step that has no Program, and why.

    Examples
    --------
    >>> import effml
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> tree = DecisionTreeClassifier(max_leaf_nodes=3, random_state=0).fit(X, y)
    >>> program = effml.lower(tree)
    >>> bool((program.labels(program.encode(X)) == tree.predict(X)).all())
    True
    """
    est = _final(est)
    frame = _raw_frame(est)
    _lower_predictor(est, frame, **options)
    return frame.builder.program(source=_source_text(est))


def _raw_frame(est) -> Frame:
    check_is_fitted(est)
    builder = Builder(inputs=[InputSpec(name) for name in _column_names(est)])
    return Frame(builder, [Column(position) for position in range(len(builder.inputs))], _lower_transformer)


def frame_of(est) -> tuple[Builder, Frame, object]:
    """Return builder, frame and final estimator of a fitted estimator: its preprocessing lowered, its predictor not."""
    est = _final(est)
    frame = _raw_frame(est)
    while hasattr(est, "steps"):
        frame = _pipeline_transformer(est[:-1], frame)
        est = _final(est.steps[-1][1])
    return frame.builder, frame, est


def _final(est):
    while hasattr(est, "best_estimator_"):
        est = est.best_estimator_
    return est


def final_of(est):
    """Return the last step of a Pipeline, the best estimator of a search, and so on inwards."""
    while hasattr(est, "best_estimator_") or hasattr(est, "steps"):
        est = est.best_estimator_ if hasattr(est, "best_estimator_") else est.steps[-1][1]
    return est


def _column_names(est) -> list[str]:
    try:
        names = getattr(est, "feature_names_in_", None)
        n = est.n_features_in_
    except AttributeError:
        raise LoweringError(f"{type(est).__name__} does not say how many columns it reads (n_features_in_)") from None
    return [f"x{k}" for k in range(n)] if names is None else [str(name) for name in names]


def _source_text(est) -> str:
    text = repr(est) if len(repr(est)) < 2000 else type(est).__name__
    return "\n".join(line.strip() for line in text.split("\n"))


def _find(table, est, methods):
    """Return the registered function of an estimator's class, or of a base whose `methods` it did not override."""
    cls = type(est)
    for base in cls.__mro__:
        entry = table.get(f"{base.__module__}.{base.__qualname__}")
        if entry is None:
            continue
        changed = [m for m in methods if getattr_static(cls, m, None) is not getattr_static(base, m, None)]
        if changed:
            raise LoweringError(
                f"{cls.__name__} overrides {changed[0]} of {base.__name__}, so its Program could differ; "
                "register a lowering for it or use the base class"
            )
        module, function = entry.split(":")
        return getattr(import_module(module), function)
    return None


def _lower_transformer(est, frame) -> Frame:
    function = _find(_TRANSFORMERS, est, ("transform",))
    if function is None:
        raise LoweringError(
            f"{type(est).__name__} cannot be lowered as a preprocessing step; supported are "
            f"{', '.join(sorted(name.rsplit('.', 1)[1] for name in _TRANSFORMERS))}"
        )
    return function(est, frame)


def _lower_predictor(est, frame, **options) -> None:
    function = _find(_PREDICTORS, est, _PREDICTING)
    if function is None:
        raise LoweringError(
            f"{type(est).__name__} cannot be lowered; supported are "
            f"{', '.join(sorted(name.rsplit('.', 1)[1] for name in _PREDICTORS))}"
        )
    _check_options(function, est, options)
    function(est, frame, **options)


def _check_options(function, est, options):
    """Raise for options that a lowering does not name; one that takes any hands them on, or checks them itself."""
    accepted = [*signature(function).parameters.values()][2:]
    names = [parameter.name for parameter in accepted]
    unknown = sorted(set(options) - set(names))
    if unknown and all(parameter.kind is not Parameter.VAR_KEYWORD for parameter in accepted):
        takes = f"accepted are {names}" if names else "it takes none"
        raise TypeError(f"option {unknown[0]!r} is unknown to the lowering of {type(est).__name__}; {takes}")


def _pipeline_transformer(pipeline, frame) -> Frame:
    for _, step in pipeline.steps:
        frame = frame if step in (None, "passthrough") else frame.through(step)
    return frame


def _pipeline_predictor(pipeline, frame, **options) -> None:
    frame = _pipeline_transformer(pipeline[:-1], frame)
    _lower_predictor(_final(pipeline.steps[-1][1]), frame, **options)


# -- readings of the Program ------------------------------------------------------------------------------------------


def _as_program(est, **options) -> Program:
    return est if isinstance(est, Program) else lower(est, **options)


def footprint(est, *, target: str = "host", input_dtype: str = "float32", outputs=None, **options) -> Footprint:
    """Return what a fitted estimator costs on a device: bytes of flash and RAM, operations, parameters, bits.

    Parameters
    ----------
    est : estimator or Program
    target : {"host", "cortex-m0", "cortex-m3", "cortex-m4f", "riscv32", "avr"}
        "host" is analytic; a microcontroller is measured where its tools are installed, as `Footprint.basis` says.
    input_dtype : {"float32", "int32", "int16", "uint8"}
        Type of the raw row; thresholds on integers take fewer bytes.
    outputs : sequence of str, optional
        What the device computes, as in :func:`to_c`.

    Examples
    --------
    >>> import effml
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> effml.footprint(DecisionTreeClassifier(max_leaf_nodes=3).fit(X, y)).constant_bytes < 32
    True
    """
    program = with_input_dtype(_as_program(est, **options), input_dtype)
    return footprint_of(program, target=target, outputs=None if outputs is None else _names(outputs))


def _names(outputs) -> tuple[str, ...]:
    return (outputs,) if isinstance(outputs, str) else tuple(outputs)


def to_c(
    est, folder, *, name="model", input_dtype="float32", outputs=None, package="files", self_test=None, **options
) -> list[Path]:
    """Write ``name.h`` and ``name.c``: C99, no heap, no libm; the same predictions as Python, bit for bit.

    Parameters
    ----------
    est : estimator or Program
    folder : path-like
        Made when it does not exist. Both files are written, or none.
    name : str
        Prefix of every symbol, and the files' name.
    input_dtype : {"float32", "int32", "int16", "uint8"}
        Type of the row that the C reads. An integer type is for columns that hold such integers only, without missing
        values: there the C predicts what Python predicts.
    outputs : sequence of {"label", "score", "proba", "value", "std"}, optional
        One function each; by default the label, or the value of a regressor.
    package : {"files", "arduino", "component"}
        The pair of files alone, an Arduino library, or a component for CMake and PlatformIO.
    self_test : array or DataFrame (n_rows, n_features), optional
        1 to 1000 rows: adds C with these and Python's outputs, which counts the rows that differ on the device.

    Returns
    -------
    list of Path
    """
    _check_input_dtype(input_dtype)
    program = with_input_dtype(_as_program(est, **options), input_dtype)
    if Path(folder).exists() and not Path(folder).is_dir():
        raise NotADirectoryError(
            f"folder={str(folder)!r} is a file; give a folder, which is made when it does not exist"
        )
    outputs = _names(outputs or program.main_output)
    source = generate_c(program, name, outputs=outputs)
    test = None if self_test is None else self_test_source(source, program, program.encode(self_test), outputs)
    return write_files(folder, package_files(source, program, package, test))


def _check_input_dtype(input_dtype):
    if input_dtype not in INPUT_DTYPES:
        raise ValueError(f"input_dtype={input_dtype!r} must be one of {list(INPUT_DTYPES)}")


def compile_c(est, *, input_dtype: str = "float32", **options) -> CompiledModel:
    """Compile the exported C with the host's compiler and return it as an object with `predict`.

    Parameters
    ----------
    est : estimator
    input_dtype : {"float32", "int32", "int16", "uint8"}

    Returns
    -------
    CompiledModel

    Raises
    ------
    CompileError
        No compiler was found, or it refused the C.
    """
    _check_input_dtype(input_dtype)
    return CompiledModel(_final(est), input_dtype=input_dtype, **options)


# -- what can be exported ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ExportRow:
    """One step of a pipeline and how it would be exported."""

    step: str
    status: str
    note: str


@dataclass(frozen=True)
class ExportReport:
    """What :func:`check_export` found: one row a step."""

    rows: tuple[ExportRow, ...]

    @property
    def supported(self) -> bool:
        """Whether every step has a Program."""
        return all(row.status != "unsupported" for row in self.rows)

    def __str__(self):
        width = max(len(row.step) for row in self.rows)
        return "\n".join(f"{row.step:<{width}}  {row.status:<11}  {row.note}".rstrip() for row in self.rows)


_LAYERED_NOTE = "float32 sums; effml.quantize(est, X_calib) gives exact integers"
_FLOAT_NOTES = {
    "ItemsetSparseBayesRegressor": "which itemsets match is exact; float32 sums",
    "LocalizedMKLClassifier": "float32 in Python and C, the same numbers; behind a scaler near ties may differ",
    "LocalizedMKLRegressor": "float32 in Python and C, the same numbers; behind a scaler the last digits may differ",
    "TorchClassifier": _LAYERED_NOTE,
    "TorchRegressor": _LAYERED_NOTE,
}


def check_export(est) -> ExportReport:
    """List each step of an estimator or Pipeline, fitted or not, as exact, float or unsupported, with the cure.

    Examples
    --------
    >>> import effml
    >>> from sklearn.decomposition import PCA
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> effml.check_export(make_pipeline(PCA(), DecisionTreeClassifier())).supported
    False
    """
    rows: list[ExportRow] = []
    _check(est, "", rows, final=True)
    return ExportReport(tuple(rows))


def _check(est, path, rows, *, final):
    name = f"{path}{type(est).__name__}"
    if hasattr(est, "steps") and hasattr(est, "named_steps"):
        for position, (step_name, step) in enumerate(est.steps):
            if step not in (None, "passthrough"):
                last = final and position == len(est.steps) - 1
                _check(step, f"{path}{step_name}: ", rows, final=last)
        return
    parts = getattr(est, "transformers", None) or getattr(est, "transformer_list", None)
    if parts and not final:
        for part_name, part, *_ in parts:
            if not isinstance(part, str):
                _check(part, f"{path}{part_name}: ", rows, final=False)
        return
    inner = getattr(est, "estimator", None)
    if final and inner is not None and hasattr(est, "cv") and not isinstance(inner, str):
        _check(inner, path, rows, final=True)
        return
    try:
        function = _find(_PREDICTORS if final else _TRANSFORMERS, est, _PREDICTING if final else ("transform",))
    except LoweringError as error:
        rows.append(ExportRow(name, "unsupported", str(error)))
        return
    if function is None:
        table = _PREDICTORS if final else _TRANSFORMERS
        known = ", ".join(sorted(entry.rsplit(".", 1)[1] for entry in table))
        rows.append(ExportRow(name, "unsupported", f"no lowering; use one of {known}"))
        return
    note = _LAYERED_NOTE if final and is_layered(est) else _FLOAT_NOTES.get(type(est).__name__, "")
    rows.append(ExportRow(name, "float" if note else "exact", note))


def quantize(est, X_calib, *, weight_bits: int = 8, activation_bits: int = 8):
    """Return an estimator whose `predict` is an integer path, from a fitted linear model or network, or a Pipeline.

    Torch estimators (:mod:`effml.deep`) as well: their weights that take few levels already are kept.

    Ranges of inputs and activations, and how weights are rounded, are chosen by squared errors on `X_calib`; a few
    hundred rows that look like those to come are enough.

    Parameters
    ----------
    est : fitted linear model or MLPClassifier / MLPRegressor of scikit-learn, or a Pipeline or search that ends in one
        Or a TorchClassifier / TorchRegressor. Before it: foldable transformers, see :func:`check_export`.
    X_calib : array or DataFrame (n_rows, n_features)
        Rows that show the ranges of inputs and activations; no labels are needed. Of more than 5,000 rows, evenly
        spaced ones are taken.
    weight_bits, activation_bits : int
        2 to 8. Inputs have `activation_bits`, too.

    Returns
    -------
    QuantizedLinearClassifier, QuantizedLinearRegressor, QuantizedNetworkClassifier or QuantizedNetworkRegressor
        Or QuantizedTorchClassifier, QuantizedTorchRegressor. Fitted. A classifier's label takes integer steps alone
        where the calibration data are small non-negative integers; else the one float operation is the scaling of the
        raw inputs.

    Raises
    ------
    LoweringError
        For models and transformers that have no integer form.
    ValueError
        For bits outside 2 to 8, and missing or infinite values in `X_calib`.

    Examples
    --------
    >>> import effml
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.svm import LinearSVC
    >>> X, y = load_digits(return_X_y=True)
    >>> small = effml.quantize(LinearSVC(C=0.01).fit(X, y), X, weight_bits=4)
    >>> bool(small.score(X, y) > 0.95)
    True
    """
    if hasattr(final_of(est), "export_module_"):
        from effml.deep.quantized import quantize_estimator as quantized
    else:
        from effml.adapters.quantized import quantize_layers as quantized

    return quantized(_final(est), X_calib, weight_bits=weight_bits, activation_bits=activation_bits)
