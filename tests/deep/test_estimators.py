"""The estimators: labels, weights, pipelines, grids over recipes and modules, pickling, early stopping."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn.utils import parametrize

import effml
from effml.deep import Callback, ProxConnect, Recipe, SmartTernary, TorchClassifier, TorchRegressor, evaluate, train
from effml.selection import BudgetSearchCV


def mlp(n_features, n_outputs, hidden=16):
    return nn.Sequential(nn.Linear(n_features, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, n_outputs))


class Sorted(nn.Module):
    """A layer that no exporter knows."""

    def forward(self, x):
        return x.sort(dim=1).values


def unlowerable(n_features, n_outputs, hidden=16):
    return nn.Sequential(*mlp(n_features, n_outputs, hidden)[:3], Sorted(), nn.Linear(hidden, n_outputs))


def small_cnn(n_outputs):
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, n_outputs))


FAST = {"learning_rate_init": 0.01, "max_iter": 8, "random_state": 0}


@pytest.fixture(scope="module")
def arrays(digits):
    (X, y), (X_test, y_test) = digits
    return X[:600].numpy(), y[:600].numpy(), X_test.numpy(), y_test.numpy()


def test_labels_of_any_type_keep_their_order(arrays):
    X, y, X_test, y_test = arrays
    names = np.array([f"digit {9 - label}" for label in range(10)])
    model = TorchClassifier(mlp, **FAST).fit(X, names[y])
    assert model.classes_.tolist() == sorted(names)
    assert model.score(X_test, names[y_test]) > 0.85
    proba = model.predict_proba(X_test)
    np.testing.assert_allclose(proba.sum(1), 1)
    assert (model.classes_[proba.argmax(1)] == model.predict(X_test)).all()


def test_what_predicts_is_what_ships(arrays):
    X, y, X_test, _ = arrays
    model = TorchClassifier(mlp, recipe=Recipe([SmartTernary(warmup=0.1)]), **FAST).fit(X, y)
    assert parametrize.is_parametrized(model.module_[0])
    assert not model.export_module_.training and type(model.export_module_[0]) is nn.Linear
    with torch.no_grad():
        outputs = model.export_module_(torch.as_tensor(X_test))
    assert (model.classes_[outputs.argmax(1).numpy()] == model.predict(X_test)).all()


def test_early_stopping_scores_and_keeps_what_ships(arrays):
    X, y, _, _ = arrays
    given = {**FAST, "max_iter": 40, "n_iter_no_change": 3, "validation_fraction": 0.2}
    model = TorchClassifier(mlp, recipe=Recipe([ProxConnect(bits=2)]), early_stopping=True, **given).fit(X, y)
    best = int(np.argmax(model.validation_scores_))
    assert len(model.validation_scores_) == model.n_iter_ <= 40
    assert model.n_iter_ == 40 or model.n_iter_ >= best + 3
    assert all(len(row.unique()) <= 4 for row in model.export_module_[0].weight)


def test_grid_over_recipe_and_module(arrays):
    X, y, _, _ = arrays
    model = make_pipeline(StandardScaler(), TorchClassifier(mlp, recipe=Recipe([("prox", ProxConnect())]), **FAST))
    grid = {"torchclassifier__recipe__prox__bits": [1, 4], "torchclassifier__module__hidden": [2, 24]}
    search = GridSearchCV(model, grid, cv=2).fit(X, y)
    assert search.best_params_["torchclassifier__module__hidden"] == 24
    best = search.best_estimator_[-1]
    levels = 2 ** search.best_params_["torchclassifier__recipe__prox__bits"]
    assert best.export_module_[0].weight.shape == (24, 64)
    assert max(len(row.unique()) for row in best.recipe_.techniques_["prox"].levels_["0.weight"]) <= levels
    assert model[-1].recipe.techniques[0][1].bits == 2  # the one given is as it was


def test_clone_and_pickle(arrays):
    X, y, X_test, _ = arrays
    model = TorchClassifier(
        mlp, recipe=Recipe([SmartTernary()]), module__hidden=12, optimizer__weight_decay=1e-4, **FAST
    )
    twin = clone(model)
    assert twin.get_params()["module__hidden"] == 12 and twin.recipe is not model.recipe
    model.fit(X, y)
    again = pickle.loads(pickle.dumps(model))
    assert (again.predict(X_test) == model.predict(X_test)).all()
    assert (twin.fit(X, y).predict(X_test) == model.predict(X_test)).all()


def test_a_seed_fixes_the_model_and_leaves_torch_alone(arrays):
    X, y, X_test, _ = arrays
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = TorchClassifier(mlp, **FAST).fit(X, y)
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(3)
    second = TorchClassifier(mlp, **FAST).fit(X, y)
    np.testing.assert_array_equal(first.predict_proba(X_test), second.predict_proba(X_test))


def test_images_modules_as_objects_and_skorch_callbacks(arrays):
    skorch = pytest.importorskip("skorch")
    X, y, X_test, y_test = arrays
    schedule = skorch.callbacks.LRScheduler(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=8)
    model = TorchClassifier(small_cnn(10), callbacks=[schedule], **FAST).fit(X.reshape(-1, 1, 8, 8), y)
    assert model.input_shape_ == (1, 8, 8)
    assert model.score(X_test.reshape(-1, 1, 8, 8), y_test) > 0.9
    assert model.net_.optimizer_.param_groups[0]["lr"] < 0.01


def test_callbacks_may_change_the_data_here_too(arrays):
    class FirstRows(Callback):
        def epoch_begin(self, state):
            state.data = [tuple(part[:7] for part in batch) for batch in state.data]

        def step_end(self, state):
            self.rows_ = len(state.batch.inputs), len(state.batch.targets), len(state.batch.weights)

    X, y, _, _ = arrays
    model = TorchClassifier(mlp, recipe=Recipe([FirstRows()]), max_iter=2, random_state=0)
    model.fit(X, y, sample_weight=np.arange(1, len(y) + 1))
    assert model.recipe_.techniques_["firstrows"].rows_ == (7, 7, 7)


def test_frames_and_float64_are_taken(arrays):
    pandas = pytest.importorskip("pandas")
    X, y, X_test, _ = arrays
    frame = pandas.DataFrame(X.astype(float), columns=[f"p{i}" for i in range(64)])
    model = TorchClassifier(mlp, **FAST).fit(frame, y)
    assert list(model.feature_names_in_) == list(frame.columns)
    plain = TorchClassifier(mlp, **FAST).fit(X, y)
    expected = plain.predict(X_test)
    assert (model.predict(pandas.DataFrame(X_test, columns=frame.columns)) == expected).all()


def test_rows_of_weight_zero_are_not_there(arrays):
    X, y, X_test, _ = arrays
    weights = (y < 5).astype(float)
    weighted = TorchClassifier(mlp, **FAST).fit(X, y, sample_weight=weights)
    assert weighted.classes_.tolist() == [0, 1, 2, 3, 4]
    assert set(weighted.predict(X_test)) <= {0, 1, 2, 3, 4}


def test_class_weights_move_the_balance(arrays):
    X, y, _, _ = arrays
    rare = np.where(y == 3, 1, 0)
    given = {**FAST, "max_iter": 2}
    shares = [
        TorchClassifier(mlp, class_weight=weight, **given).fit(X, rare).predict(X).mean()
        for weight in ({0: 20.0, 1: 1.0}, {0: 1.0, 1: 20.0})
    ]
    assert shares[0] < shares[1]


def test_regression_of_one_and_of_several_outputs():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3))
    y = X @ [1.0, -2.0, 0.5]
    given = {"learning_rate_init": 0.05, "max_iter": 20, "random_state": 0}
    one = TorchRegressor(nn.Linear(3, 1), **given).fit(X, y)
    assert one.predict(X).shape == (300,) and one.score(X, y) > 0.99
    both = TorchRegressor(nn.Linear(3, 2), **given).fit(X, np.column_stack([y, -y]))
    assert both.predict(X).shape == (300, 2) and both.score(X, np.column_stack([y, -y])) > 0.99
    with pytest.raises(ValueError, match=r"returns \(64, 2\) for targets of shape \(64,\)"):
        TorchRegressor(nn.Linear(3, 2), **given).fit(X, y)


def test_wrong_parameters_are_named(arrays):
    X, y, _, _ = arrays
    with pytest.raises(TypeError, match="unknown parameter 'hidden'"):
        TorchClassifier(mlp, hidden=3)
    with pytest.raises(ValueError, match="takes no parameters"):
        TorchClassifier(nn.Linear(64, 10), module__hidden=3).fit(X, y)
    with pytest.raises(ValueError, match="'max_iter' parameter of TorchClassifier"):
        TorchClassifier(mlp, max_iter=0).fit(X, y)
    with pytest.raises(TypeError, match="made list"):
        TorchClassifier(list).fit(X, y)


def test_a_search_within_a_budget_counts_programs_alone(arrays):
    X, y, _, _ = arrays
    without = TorchClassifier(unlowerable, **FAST)
    candidates = [(TorchClassifier(mlp, **FAST), {"module__hidden": [8, 24]}), (without, {})]
    search = BudgetSearchCV(candidates, budget="flash=4KiB", cv=2, random_state=0)
    with pytest.warns(UserWarning, match="getattr cannot be lowered"):
        search.fit(X, y)
    measured = effml.footprint(search.best_estimator_)
    assert search.best_footprint_["flash_bytes"] == measured.flash_bytes <= 4096
    costs = -search.cv_results_["mean_test_flash_bytes"]
    assert costs[1] > 4096 and np.isnan(costs[2])  # the budget had something to refuse; without Program, no price
    with pytest.raises(ValueError, match="getattr cannot be lowered"):
        BudgetSearchCV([(without, {})], budget="flash=4KiB", cv=2).fit(X, y)


def test_evaluate_agrees_with_score(arrays, digits):
    X, y, X_test, y_test = arrays
    model = TorchClassifier(mlp, **FAST).fit(X, y)
    assert evaluate(model.export_module_, (X_test, y_test)) == pytest.approx(model.score(X_test, y_test))


def test_training_that_diverges_is_an_error(arrays):
    X, y, _, _ = arrays
    with pytest.raises(ValueError, match=r"training diverged: the loss of epoch \d is nan"):
        TorchClassifier(mlp, learning_rate_init=1e30, max_iter=3, random_state=0).fit(X * 1e5, y)
    with pytest.raises(ValueError, match="training diverged"):
        train(mlp(64, 10), (X * np.nan, y), epochs=1)


def test_a_lone_last_row_does_not_stop_batch_norm(arrays):
    X, y, _, _ = arrays

    def normed(n_features, n_outputs):
        return nn.Sequential(nn.Linear(n_features, 8), nn.BatchNorm1d(8), nn.Linear(8, n_outputs))

    TorchClassifier(normed, max_iter=1, batch_size=64, random_state=0).fit(X[:129], y[:129])
    state = train(normed(64, 10), (X[:129], y[:129]), epochs=1, batch_size=64)
    assert len(state.data) == 2 and sum(len(inputs) for inputs, _ in state.data) == 129


def test_a_module_with_other_outputs_than_classes_is_refused(arrays):
    X, y, _, _ = arrays
    with pytest.raises(ValueError, match=r"returns shape \(2, 7\) for 2 rows; y has 10 classes"):
        TorchClassifier(nn.Linear(64, 7), max_iter=1).fit(X, y)
