"""Models on disk: what comes back predicts the same, and what is not trusted is not loaded."""

import io
import json
import zipfile

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from effml.persistence import TRUSTED_TYPES, load_model, save_model, saved_input_dtype

X, y = load_iris(return_X_y=True)


def fitted_models():
    from effml.bayes import NaiveBayesClassifier, TANClassifier

    return [
        DecisionTreeClassifier(max_leaf_nodes=5, random_state=0),
        make_pipeline(StandardScaler(), LogisticRegression()),
        NaiveBayesClassifier(),
        NaiveBayesClassifier(n_bits=3),
        TANClassifier(n_bits=6, integer_bits="auto"),
        TANClassifier(n_bits=2, class_weight="balanced", random_state=0),
        make_pipeline(StandardScaler(), TANClassifier()),
    ]


@pytest.mark.parametrize("position", range(7))
@pytest.mark.parametrize("labels", ["numbers", "text"])
def test_model_comes_back_the_same(tmp_path, position, labels):
    model = fitted_models()[position].fit(X, y if labels == "numbers" else np.array(list('a"*'))[y])
    again = load_model(save_model(model, tmp_path / "model.skops"))
    assert np.array_equal(again.predict(X), model.predict(X))
    assert np.array_equal(again.predict_proba(X), model.predict_proba(X))
    assert repr(again) == repr(model)


def test_model_fitted_on_text_columns_comes_back_the_same(tmp_path):
    pd = pytest.importorskip("pandas")
    from effml.bayes import TANClassifier

    table = pd.DataFrame({"size": X[:, 0], "colour": np.array(["red", "blue", "green"])[(X[:, 2] * 7).astype(int) % 3]})
    model = TANClassifier(n_bits=4).fit(table, y)
    again = load_model(save_model(model, tmp_path / "model.skops"))
    assert np.array_equal(again.predict(table), model.predict(table))


def test_input_type_comes_back(tmp_path):
    tree = DecisionTreeClassifier(max_leaf_nodes=5, random_state=0).fit(X, y)
    path = tmp_path / "tree.skops"
    assert saved_input_dtype(save_model(tree, path)) is None
    assert saved_input_dtype(save_model(tree, path, input_dtype="uint8")) == "uint8"
    assert np.array_equal(load_model(path).predict(X), tree.predict(X))
    with pytest.raises(ValueError, match="input_dtype='float64' must be one of"):
        save_model(tree, path, input_dtype="float64")


@pytest.mark.parametrize("text", ['{"input_dtype": "float64"}', "[]", "nonsense"])
def test_input_type_that_is_none_is_refused(tmp_path, text):
    path = tmp_path / "tree.skops"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("effml.json", text)
    with pytest.raises(ValueError, match=r"names no input type of effml|is damaged"):
        saved_input_dtype(path)


def test_folder_that_is_not_there_is_named(tmp_path):
    tree = DecisionTreeClassifier(max_leaf_nodes=5, random_state=0).fit(X, y)
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*nowhere"):
        save_model(tree, tmp_path / "nowhere" / "tree.skops")


def test_every_public_estimator_is_trusted():
    from sklearn.base import BaseEstimator

    import effml.bayes
    import effml.discretization

    for module in (effml.bayes, effml.discretization):
        for name in module.__all__:
            thing = getattr(module, name)
            if isinstance(thing, type) and issubclass(thing, BaseEstimator):
                assert f"{thing.__module__}.{thing.__qualname__}" in TRUSTED_TYPES


def test_existing_file_is_replaced_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "model.skops"
    path.write_bytes(b"old")
    save_model(DecisionTreeClassifier().fit(X, y), path)
    assert load_model(path).get_n_leaves() > 2
    assert [file.name for file in tmp_path.iterdir()] == ["model.skops"]


def test_untrusted_type_is_refused_by_name_when_saving(tmp_path):
    model = make_pipeline(FunctionTransformer(io.StringIO), DecisionTreeClassifier())
    with pytest.raises(TypeError, match=r"would refuse: .*StringIO"):
        save_model(model, tmp_path / "model.skops")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", [3, {"a": 1}, DecisionTreeClassifier])
def test_only_estimators_are_saved(tmp_path, what):
    with pytest.raises(TypeError, match="est must be an estimator"):
        save_model(what, tmp_path / "model.skops")


def test_untrusted_type_is_refused_by_name_when_loading(tmp_path):
    from skops.io import dump

    path = tmp_path / "model.skops"
    dump(make_pipeline(FunctionTransformer(io.StringIO), DecisionTreeClassifier()), path)
    with pytest.raises(ValueError, match=r"names types that are not trusted and was not loaded: .*StringIO"):
        load_model(path)


def test_object_that_is_no_estimator(tmp_path):
    from skops.io import dump

    dump({"a": np.arange(3)}, tmp_path / "model.skops")
    with pytest.raises(ValueError, match="holds an object of type dict, no estimator"):
        load_model(tmp_path / "model.skops")


def empty_zip():
    stream = io.BytesIO()
    zipfile.ZipFile(stream, "w").close()
    return stream.getvalue()


@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x03\x04 broken", b"\x80\x04N.", empty_zip()])
def test_foreign_file_is_one_clear_error(tmp_path, content):
    path = tmp_path / "model.skops"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.skops' is damaged or no model file of effml"):
        load_model(path)


def test_every_truncation_and_many_damages_are_clear_errors(tmp_path):
    path = save_model(DecisionTreeClassifier(max_depth=2).fit(X, y), tmp_path / "model.skops")
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [whole[:end] for end in range(0, len(whole), 97)]
    for _ in range(50):
        copy = bytearray(whole)
        copy[rng.integers(len(copy))] ^= 1 << rng.integers(8)
        damaged.append(bytes(copy))
    for content in damaged:
        path.write_bytes(content)
        try:
            model = load_model(path)
        except ValueError as error:
            assert "model.skops" in str(error)
        else:  # a bit that carries no meaning, such as a time stamp
            assert model.predict(X).shape == y.shape


def test_tree_with_links_out_of_its_arrays_is_refused(tmp_path):
    path = save_model(DecisionTreeClassifier(max_depth=2).fit(X, y), tmp_path / "model.skops")
    stream = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(stream, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith(".npy"):
                array = np.load(io.BytesIO(content))
                if array.dtype.names and "left_child" in array.dtype.names:
                    array["left_child"][0] = 10**6
                    changed = io.BytesIO()
                    np.save(changed, array)
                    content = changed.getvalue()
            target.writestr(name, content)
    path.write_bytes(stream.getvalue())
    with pytest.raises(ValueError, match="links that lead out of it"):
        load_model(path)


def test_missing_file():
    with pytest.raises(FileNotFoundError, match=r"There is no model file 'no_such\.skops'"):
        load_model("no_such.skops")


def test_file_is_a_plain_zip_with_a_schema(tmp_path):
    path = save_model(DecisionTreeClassifier().fit(X, y), tmp_path / "model.skops")
    with zipfile.ZipFile(path) as archive:
        assert json.loads(archive.read("schema.json"))["__class__"] == "DecisionTreeClassifier"
