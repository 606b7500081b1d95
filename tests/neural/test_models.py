"""The estimators: what they learn, what they refuse, how training goes on."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits

from effml.neural import QuantizedConvClassifier, QuantizedMLPClassifier, QuantizedMLPRegressor
from effml.neural.base import forward_parts

DIGITS, LABELS = load_digits(return_X_y=True)
QUICK = {"hidden_layer_sizes": (24,), "max_iter": 10, "random_state": 0}
FORMATS = [
    {"weight_bits": 1},
    {"weight_bits": 3, "batch_norm": True},
    {"weight_bits": 2, "activation": "sign"},
    {"weight_bits": 1, "activation": "sign", "batch_norm": True},
    {"weight_bits": 8, "activation_bits": 8},
    {"weight_bits": 4, "activation_bits": 2, "batch_norm": True},
    {"weight_bits": None},
    {"weight_bits": None, "activation": "sign", "batch_norm": True},
    {"weight_bits": None, "activation_bits": 3},
]


def of_training(model, X):
    """Return the scores that the network of floats gives, as it was trained."""
    codes = model.input_format_.encode(X.astype(np.float32))
    rows = model._rows(codes, np.zeros(len(X)), np.ones(len(X)), np.arange(len(X)))
    return forward_parts(model._network(None), rows)


@pytest.mark.parametrize("given", FORMATS, ids=str)
@pytest.mark.parametrize("hidden", [(), (24,), (20, 15)], ids=str)
def test_integers_predict_what_was_trained(given, hidden):
    model = QuantizedMLPClassifier(**QUICK | given | {"hidden_layer_sizes": hidden}).fit(DIGITS, LABELS)
    trained, found = of_training(model, DIGITS), model.decision_function(DIGITS)
    best = trained.argmax(axis=1)
    lead = trained[np.arange(len(best)), best] - np.sort(trained, axis=1)[:, -2]
    assert np.mean(found.argmax(axis=1) == best) > 0.985
    assert (found.argmax(axis=1) == best)[lead > 0.5 * trained.std()].mean() > 0.999
    assert np.median(np.abs(found - trained)) < 0.02 * trained.std()
    assert_array_equal(model.predict(DIGITS), model.classes_[found.argmax(axis=1)])
    assert_allclose(model.predict_proba(DIGITS).sum(axis=1), 1)


@pytest.mark.parametrize("given", FORMATS, ids=str)
def test_convolutions_predict_what_was_trained(given):
    model = QuantizedConvClassifier(image_shape=(8, 8), channels=(4, 6), max_iter=4, random_state=0, **given)
    trained, found = of_training(model.fit(DIGITS, LABELS), DIGITS), model.decision_function(DIGITS)
    assert np.mean(found.argmax(axis=1) == trained.argmax(axis=1)) > 0.97
    assert np.median(np.abs(found - trained)) < 0.02 * trained.std()


def test_low_bits_learn_digits():
    X, y, new, truth = DIGITS[::2], LABELS[::2], DIGITS[1::2], LABELS[1::2]
    given = {"hidden_layer_sizes": (64,), "max_iter": 60, "random_state": 0}
    for formats, least in [({"weight_bits": 4}, 0.95), ({"weight_bits": 2}, 0.94), ({"weight_bits": 1}, 0.9)]:
        assert QuantizedMLPClassifier(**given, **formats).fit(X, y).score(new, truth) > least
    images = QuantizedConvClassifier(image_shape=(8, 8), channels=(8, 16), weight_bits=2, batch_norm=True)
    assert images.set_params(max_iter=40, random_state=0).fit(X, y).score(new, truth) > 0.93


@pytest.mark.parametrize("budget, width, largest_error", [(7644, 41, 14.6), (15_288, 86, 11.8)])
def test_letter_reaches_the_errors_of_the_reference_run(published, budget, width, largest_error):
    X, y, new, truth = published("letter_mdl")
    model = QuantizedMLPClassifier(budget_bits=budget, weight_bits=4, max_iter=60, random_state=0).fit(X, y)
    assert model.architecture_.hidden == (width,)
    assert 100 * (1 - model.score(new, truth)) <= largest_error


def test_regression_in_integers():
    X, y = load_diabetes(return_X_y=True)
    targets = np.column_stack([y, 1000 - 3 * y])
    model = QuantizedMLPRegressor(hidden_layer_sizes=(16,), max_iter=40, random_state=0).fit(X, targets)
    assert model.score(X, targets) > 0.55
    assert model.predict(X).shape == (442, 2)
    trained = of_training(model, X) * model.target_scale_ + model.target_mean_
    assert_allclose(model.predict(X), trained, atol=0.02 * targets.std())
    alone = clone(model).fit(X, y)
    assert alone.predict(X).shape == (442,)
    with pytest.warns(UserWarning, match="column-vector y"):
        column = clone(model).fit(X, y[:, None])
    assert_array_equal(column.predict(X), alone.predict(X))


def test_model_is_made_of_codes():
    model = QuantizedMLPClassifier(weight_bits=3, **QUICK).fit(DIGITS, LABELS)
    for codes, weights in zip(model.codes_, model.coefs_, strict=True):
        assert codes.dtype == np.uint8 and codes.max() <= 7
        assert_allclose(weights, (2.0 * codes - 7) / 7, rtol=1e-6)
    assert model.size_bits_ == 3 * (64 * 24 + 24 * 10) + 320
    assert model.n_operations_ == 64 * 24 + 24 * 10 + 10
    assert np.abs(model.parameters_["weight1"]).max() <= 1


def test_seed_decides_the_model():
    first, again = (QuantizedMLPClassifier(activation="sign", **QUICK).fit(DIGITS, LABELS) for _ in range(2))
    other = QuantizedMLPClassifier(activation="sign", **QUICK | {"random_state": 1}).fit(DIGITS, LABELS)
    assert_array_equal(first.codes_[0], again.codes_[0])
    assert (first.codes_[0] != other.codes_[0]).any()


def test_weights_count_as_rows():
    """Rows of weight 0 are not there, classes of little weight are hardly learned."""
    weights = np.where(LABELS == 3, 0.0, 1.0)
    model = QuantizedMLPClassifier(**QUICK).fit(DIGITS, LABELS, sample_weight=weights)
    assert 3 not in model.classes_
    light = QuantizedMLPClassifier(**QUICK).fit(DIGITS, LABELS, sample_weight=np.where(LABELS == 3, 1e-3, 1.0))
    heavy = QuantizedMLPClassifier(**QUICK).fit(DIGITS, LABELS, sample_weight=np.where(LABELS == 3, 30.0, 1.0))
    by_class = QuantizedMLPClassifier(class_weight={3: 30.0}, **QUICK).fit(DIGITS, LABELS)
    counts = [np.sum(found.predict(DIGITS) == 3) for found in (light, heavy)]
    assert counts[0] < np.sum(LABELS == 3) / 2 < counts[1]
    assert_array_equal(heavy.predict(DIGITS), by_class.predict(DIGITS))


def test_early_stopping_keeps_the_best_epoch():
    model = QuantizedMLPClassifier(
        hidden_layer_sizes=(24,), max_iter=60, early_stopping=True, n_iter_no_change=3, random_state=0
    ).fit(DIGITS, LABELS)
    assert model.n_iter_ == len(model.loss_curve_) == len(model.validation_scores_) < 60
    best = int(np.argmax(model.validation_scores_))
    assert model.n_iter_ - 1 - best <= 3
    # the same epochs and no further: the learning rates depend on max_iter alone, so stop by patience at the best one
    held = clone(model).set_params(n_iter_no_change=60).fit(DIGITS, LABELS)
    assert_array_equal(held.validation_scores_[: model.n_iter_], model.validation_scores_)
    assert max(held.validation_scores_) >= max(model.validation_scores_)


def test_training_goes_on():
    model = QuantizedMLPClassifier(warm_start=True, **QUICK).fit(DIGITS, LABELS)
    before = model.loss_curve_[-1]
    model.fit(DIGITS, LABELS)
    assert len(model.loss_curve_) == 20 and model.loss_curve_[-1] < before
    with pytest.raises(ValueError, match="warm_start=True needs the classes of the previous fit"):
        model.fit(DIGITS[:100], LABELS[:100] % 3)


def test_training_goes_on_with_the_same_architecture():
    model = QuantizedMLPClassifier(warm_start=True, **QUICK).fit(DIGITS, LABELS)
    before = model.predict(DIGITS)
    model.set_params(weight_bits=2)
    assert_array_equal(model.predict(DIGITS), before)
    with pytest.raises(ValueError, match="goes on with the architecture it began with"):
        model.fit(DIGITS, LABELS)
    assert_array_equal(model.predict(DIGITS), before)


def test_partial_fit_learns_in_portions():
    model = QuantizedMLPClassifier(hidden_layer_sizes=(24,), learning_rate_init=0.01, random_state=0)
    with pytest.raises(ValueError, match="classes=None"):
        model.partial_fit(DIGITS, LABELS)
    for _ in range(15):
        for start in range(0, 1797, 600):
            rows = slice(start, start + 600)
            model.partial_fit(DIGITS[rows], LABELS[rows], classes=np.arange(10))
    assert model.score(DIGITS, LABELS) > 0.85
    with pytest.raises(ValueError, match="label 11"):
        model.partial_fit(DIGITS[:5], np.full(5, 11))
    regressor = QuantizedMLPRegressor(hidden_layer_sizes=(8,), random_state=0)
    for _ in range(10):
        regressor.partial_fit(DIGITS, LABELS.astype(float))
    assert regressor.score(DIGITS, LABELS) > 0.4
    with pytest.raises(ValueError, match="y has 2 outputs"):
        regressor.partial_fit(DIGITS, np.column_stack([LABELS, LABELS]).astype(float))


def test_budget_sets_the_width():
    model = QuantizedMLPClassifier(**QUICK | {"hidden_layer_sizes": (5, 5)}, budget_bits=6000, weight_bits=2)
    model.fit(DIGITS, LABELS)
    assert len(set(model.architecture_.hidden)) == 1 and len(model.architecture_.hidden) == 2
    assert abs(model.size_bits_ - 6000) < 200
    images = QuantizedConvClassifier(image_shape=(8, 8), budget_bits=3000, max_iter=1, random_state=0)
    images.fit(DIGITS, LABELS)
    n, twice = images.architecture_.hidden
    assert twice == 2 * n and abs(images.size_bits_ - 3000) < 900


def test_verbose_training_prints_losses(capsys):
    QuantizedMLPClassifier(**QUICK | {"max_iter": 2}, verbose=True, early_stopping=True).fit(DIGITS, LABELS)
    printed = capsys.readouterr().out
    assert printed.count("loss = ") == 2 and printed.count("Validation score") == 2


@pytest.mark.parametrize(
    "given, message",
    [
        ({"weight_bits": 9}, "weight_bits"),
        ({"weight_bits": 0}, "weight_bits"),
        ({"activation": "tanh"}, "activation"),
        ({"activation": "sign", "activation_bits": 4}, "activation_bits=4 does not fit activation='sign'"),
        ({"hidden_layer_sizes": (0,)}, "hidden_layer_sizes"),
        ({"hidden_layer_sizes": (3.5,)}, "hidden_layer_sizes"),
        ({"hidden_layer_sizes": (), "budget_bits": 100}, "budget_bits needs at least one hidden layer"),
        ({"input_bits": 1}, "input_bits"),
        ({"learning_rate_init": 0}, "learning_rate_init"),
    ],
    ids=str,
)
def test_wrong_parameters_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        QuantizedMLPClassifier(**QUICK | given).fit(DIGITS, LABELS)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"image_shape": (8, 9)}, "has 72 pixels; X has 64 features"),
        ({"image_shape": (8, 8, 1, 1)}, "image_shape"),
        ({"image_shape": (8, -8)}, "image_shape"),
        ({"channels": ()}, "channels"),
        ({"channels": (0, 3)}, "channels"),
        ({"weight_bits": 9}, "weight_bits"),
    ],
    ids=str,
)
def test_wrong_shapes_of_images_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        QuantizedConvClassifier(**given).fit(DIGITS, LABELS)


def test_sums_beyond_32_bits_are_refused_before_training():
    X = np.random.default_rng(0).normal(size=(20, 17_000)).astype(np.float32)
    y = np.arange(20) % 2
    with pytest.raises(ValueError, match="do not fit 32 bits"):
        QuantizedMLPClassifier(weight_bits=8, **QUICK).fit(X, y)
    assert QuantizedMLPClassifier(weight_bits=4, **QUICK).fit(X, y).predict(X).shape == (20,)


def test_diverging_training_says_what_to_lower():
    with pytest.raises(ValueError, match="lower learning_rate_init"), np.errstate(all="ignore"):
        QuantizedMLPRegressor(weight_bits=None, learning_rate_init=1e30, max_iter=5, random_state=0).fit(
            DIGITS, LABELS.astype(float)
        )
