"""Gradient training: gradients, quantisers, determinism and the conventions of scikit-learn's MLP."""

import numpy as np
import pytest
from scipy.special import logsumexp
from sklearn.datasets import load_digits

from effml._quantization import ContrastFormat, FixedPointFormat
from effml.bayes import NaiveBayesClassifier, TANClassifier
from effml.bayes.tables import ScoreTable
from effml.bayes.training import Objective, Schedule, TableTrainer, score_rows, train_tables

OBJECTIVES = ["likelihood", "hybrid", "margin", "cross_entropy"]
N_STATES = np.array([3, 1, 4, 2, 5])
STRUCTURES = {"naive": np.full(5, -1), "tree": np.array([-1, 0, 0, 2, 3])}


def problem(n_classes, *, n=60, missing=True, seed=0):
    rng = np.random.default_rng(seed)
    codes = np.stack([rng.integers(0, r + int(missing), size=n) for r in N_STATES], axis=1).astype(np.uint8)
    return codes, rng.integers(0, n_classes, size=n).astype(np.int32), rng.uniform(0.5, 2, size=n)


def start(parents, n_classes, seed=1, spread=1.0):
    rng = np.random.default_rng(seed)
    shapes = [(r, n_classes) if p < 0 else (r, N_STATES[p], n_classes) for r, p in zip(N_STATES, parents, strict=True)]
    return rng.normal(0, spread, n_classes), [rng.normal(0, spread, shape) for shape in shapes]


def scores_of(prior, tables, parents, codes, normalise=True):
    """The model of the paper, written out."""
    if normalise:
        prior = prior - logsumexp(prior)
        tables = [table - logsumexp(table, axis=0) for table in tables]
    scores = np.tile(prior, (len(codes), 1))
    for i, (table, parent) in enumerate(zip(tables, parents, strict=True)):
        for s, row in enumerate(codes):
            if row[i] < N_STATES[i] and (parent < 0 or row[parent] < N_STATES[parent]):
                scores[s] += table[row[i]] if parent < 0 else table[row[i], row[parent]]
    return scores


def mean_loss(objective, scores, y, weights):
    own = scores[np.arange(len(y)), y]
    loss = -objective.generative * own + objective.cross_entropy * (logsumexp(scores, axis=1) - own)
    z = objective.sharpness * (objective.margin - own[:, None] + scores)
    z[np.arange(len(y)), y] = -np.inf
    margin = logsumexp(z, axis=1) / objective.sharpness
    return np.mean(weights * (loss + objective.margin_weight * np.maximum(0, margin)))


def trainer_of(parents, n_classes, objective, logits, number_format=None, **options):
    return TableTrainer(
        parents,
        N_STATES,
        n_classes,
        objective=objective,
        number_format=number_format,
        logits=logits,
        batch_size=60,
        **options,
    )


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("n_classes", [2, 3, 9])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradients_equal_central_differences(name, n_classes, structure):
    parents = STRUCTURES[structure]
    codes, y, weights = problem(n_classes)
    prior, tables = start(parents, n_classes)
    objective = Objective.named(name, margin=2.3, margin_weight=3.0, sharpness=4.0)
    trainer = trainer_of(parents, n_classes, objective, (prior, tables), dtype=np.float64)
    loss = trainer.batch(codes, y, weights, np.arange(len(y)), 0.0) / len(y)
    assert loss == pytest.approx(mean_loss(objective, scores_of(prior, tables, parents, codes), y, weights), abs=1e-12)
    prior_gradient, gradients = trainer.tables(trainer.first_moments)

    step = 1e-5
    for array, gradient in zip([prior, *tables], [prior_gradient, *gradients], strict=True):
        for index in np.ndindex(array.shape):
            value, ends = array[index], []
            for moved in (value + step, value - step):
                array[index] = moved
                ends.append(mean_loss(objective, scores_of(prior, tables, parents, codes), y, weights))
            array[index] = value
            assert gradient[index] == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-6)


@pytest.mark.parametrize("name", ["margin", "cross_entropy"])
def test_contrast_gradients_need_no_centring(name):
    """Without rounding (many levels) the gradient of centred rows is that of the rows themselves."""
    parents, n_classes = STRUCTURES["tree"], 4
    codes, y, weights = problem(n_classes)
    prior, tables = start(parents, n_classes)
    objective = Objective.named(name, margin=2.3, margin_weight=3.0, sharpness=4.0)
    fine = ContrastFormat(8, 1e-9)
    trainer = trainer_of(parents, n_classes, objective, (prior * 0, [t * 1e-7 for t in tables]), fine, dtype=np.float64)
    trainer.batch(codes, y, weights, np.arange(len(y)), 0.0)
    _, gradients = trainer.tables(trainer.first_moments)
    for gradient in gradients:
        np.testing.assert_allclose(gradient.sum(axis=-1), 0, atol=1e-12)


@pytest.mark.parametrize("number_format", [FixedPointFormat(3, -1), FixedPointFormat(2, 2), FixedPointFormat(4, 4)])
def test_the_kernel_rounds_as_the_format_does_and_passes_the_gradient_through(number_format):
    parents, n_classes = STRUCTURES["tree"], 5
    codes, y, weights = problem(n_classes)
    logits = start(parents, n_classes, spread=3.0)
    objective = Objective.named("hybrid", margin=2.3, margin_weight=3.0, sharpness=4.0)
    trainer = trainer_of(parents, n_classes, objective, logits, number_format, dtype=np.float64)
    _, scores = trainer.tables(trainer.scores)
    normalised = [table - logsumexp(table, axis=0) for table in logits[1]]
    for found, table in zip(scores, normalised, strict=True):
        np.testing.assert_array_equal(found, number_format.decode(number_format.encode(table)))

    # straight through: the gradient is that of a float model at the quantised scores, pushed through the softmax
    trainer.batch(codes, y, weights, np.arange(len(y)), 0.0)
    _, gradients = trainer.tables(trainer.first_moments)
    quantised = [number_format.decode(number_format.encode(t)).astype(float) for t in normalised]
    prior = number_format.decode(number_format.encode(logits[0] - logsumexp(logits[0]))).astype(float)
    step = 1e-5
    for i, table in enumerate(quantised):
        by_row = np.empty(table.shape)
        for index in np.ndindex(table.shape):
            value, ends = table[index], []
            for moved in (value + step, value - step):
                table[index] = moved
                ends.append(mean_loss(objective, scores_of(prior, quantised, parents, codes, False), y, weights))
            table[index] = value
            by_row[index] = (ends[0] - ends[1]) / (2 * step)
        expected = by_row - np.exp(normalised[i]) * by_row.sum(axis=0)
        np.testing.assert_allclose(gradients[i], expected, atol=1e-6)


@pytest.mark.parametrize("number_format", [None, FixedPointFormat(3, 1), ContrastFormat(3, 0.5)])
def test_one_result_for_every_instruction_set_and_number_of_threads(number_format):
    parents, n_classes = STRUCTURES["tree"], 11
    codes, y, weights = problem(n_classes, n=300)
    name = "margin" if isinstance(number_format, ContrastFormat) else "hybrid"
    objective = Objective.named(name, margin=2.3, margin_weight=30.0, sharpness=10.0)
    found = []
    for options in ({"portable": True}, {"n_threads": 2}, {}):
        trainer = trainer_of(parents, n_classes, objective, start(parents, n_classes), number_format, **options)
        rng = np.random.default_rng(3)
        for rate in (0.03, 0.01, 0.003):
            trainer.epoch(codes, y, weights, rng.permutation(len(y)), rate)
        found.append((trainer.logits.copy(), trainer.trainer.scale))
    for logits, scale in found[1:]:
        np.testing.assert_array_equal(logits, found[0][0])
        assert scale == found[0][1]


FORMATS = [FixedPointFormat(i, b - i) for b in range(1, 9) for i in (1, 3, 6)]
FORMATS += [ContrastFormat(b, 0.3) for b in range(1, 9)]


@pytest.mark.parametrize("number_format", FORMATS, ids=str)
def test_quantised_forward_pass_is_the_integer_path(number_format):
    parents, n_classes = STRUCTURES["tree"], 6
    codes, y, weights = problem(n_classes, n=300)
    name = "margin" if isinstance(number_format, ContrastFormat) else "hybrid"
    trained = train_tables(
        codes,
        y,
        weights,
        parents=parents,
        n_states=N_STATES,
        n_classes=n_classes,
        objective=Objective.named(name, margin=2.3, margin_weight=30.0, sharpness=10.0),
        number_format=number_format,
        schedule=Schedule(max_iter=3),
        random_state=np.random.RandomState(0),
    )
    rounded = trained.rounded
    assert rounded.format.n_bits == number_format.n_bits
    assert max(int(table.max()) for table in rounded.codes) < 2**number_format.n_bits
    floats = [rounded.format.decode(table) for table in rounded.codes]
    prior = np.zeros(n_classes) if rounded.prior_codes is None else rounded.format.decode(rounded.prior_codes)
    scale = rounded.format.scale
    on_the_grid = ScoreTable(prior / scale, [t / scale for t in floats], parents, N_STATES)
    np.testing.assert_array_equal(on_the_grid.argmax(codes), score_rows(rounded, parents, N_STATES, codes))


def test_a_likelihood_trained_by_gradient_finds_the_relative_frequencies():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, size=(400, 2)).astype(np.uint8)
    y = (codes[:, 0] > 0).astype(np.int32) ^ (rng.random(400) < 0.2)
    trained = train_tables(
        codes,
        y,
        None,
        parents=np.array([-1, 0]),
        n_states=np.array([3, 3]),
        n_classes=2,
        objective=Objective(generative=1.0),
        number_format=None,
        schedule=Schedule(max_iter=300, batch_size=400),
        random_state=np.random.RandomState(0),
    )
    np.testing.assert_allclose(np.exp(trained.log_prior), np.bincount(y) / 400, atol=1e-3)
    for c in range(2):
        frequency = np.bincount(codes[y == c, 0], minlength=3) / (y == c).sum()
        np.testing.assert_allclose(np.exp(trained.log_tables[0][:, c]), frequency, atol=5e-3)


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:1200], y[:1200], X[1200:], y[1200:]


@pytest.mark.parametrize("cls", [NaiveBayesClassifier, TANClassifier])
@pytest.mark.parametrize("options", [{}, {"n_bits": 4}, {"n_bits": 4, "integer_bits": 3}], ids=str)
def test_training_beats_counting(digits, cls, options):
    X, y, X_test, y_test = digits
    counted = cls(max_bins=4, **options).fit(X, y).score(X_test, y_test)
    objective = "margin" if options.get("n_bits") and "integer_bits" not in options else "hybrid"
    settings = {"objective": objective, "margin": 10.0, "init": "likelihood", "random_state": 0, "max_iter": 20}
    trained = cls(max_bins=4, **settings, **options).fit(X, y)
    assert trained.score(X_test, y_test) > counted
    assert len(trained.loss_curve_) == trained.n_iter_ == 20
    assert trained.loss_curve_[-1] < trained.loss_curve_[0]


def test_same_seed_same_model_for_every_n_jobs(digits):
    X, y, _, _ = digits
    make = lambda n_jobs: TANClassifier(objective="margin", n_bits=3, max_iter=3, random_state=7, n_jobs=n_jobs)  # noqa: E731
    first, second = make(1).fit(X, y), make(2).fit(X, y)
    for a, b in zip(first.codes_, second.codes_, strict=True):
        np.testing.assert_array_equal(a, b)
    assert first.scale_ == second.scale_


def test_early_stopping_keeps_the_best_epoch(digits):
    X, y, _, _ = digits
    model = NaiveBayesClassifier(
        objective="cross_entropy", early_stopping=True, n_iter_no_change=3, max_iter=200, random_state=0
    ).fit(X, y)
    assert model.n_iter_ == len(model.validation_scores_) < 200
    best = int(np.argmax(model.validation_scores_))
    assert model.n_iter_ - 1 - best >= 3 or max(model.validation_scores_[:-3]) + 1e-4 >= max(model.validation_scores_)


def test_warm_start_goes_on(digits):
    X, y, _, _ = digits
    model = NaiveBayesClassifier(objective="margin", n_bits=4, max_iter=5, warm_start=True, random_state=0).fit(X, y)
    loss = model.loss_curve_[-1]
    model.set_params(learning_rate_init=1e-3).fit(X, y)
    assert model.loss_curve_[0] < 1.2 * loss
    cold = NaiveBayesClassifier(objective="margin", n_bits=4, max_iter=5, learning_rate_init=1e-3, random_state=0)
    assert model.loss_curve_[0] < 0.5 * cold.fit(X, y).loss_curve_[0]


@pytest.mark.parametrize("formats", [{"n_bits": 3}, {"n_bits": 4, "integer_bits": 2}])
def test_quantised_training_can_start_from_float_tables(formats):
    X, y = load_digits(return_X_y=True)
    options = {"objective": "margin", "margin": 5.0, "max_iter": 8, "random_state": 0}
    model = NaiveBayesClassifier(init="float", **options, **formats).fit(X, y)
    plain = NaiveBayesClassifier(**options, **formats).fit(X, y)
    assert model.loss_curve_[0] < plain.loss_curve_[0] / 2
    as_float = [NaiveBayesClassifier(init=init, **options).fit(X, y) for init in ("float", "random")]
    for a, b in zip(as_float[0].log_tables_, as_float[1].log_tables_, strict=True):
        np.testing.assert_array_equal(a, b)


def test_verbose_prints_each_epoch(digits, capsys):
    X, y, _, _ = digits
    NaiveBayesClassifier(objective="margin", max_iter=2, verbose=True).fit(X, y)
    assert capsys.readouterr().out.splitlines()[1].startswith("Iteration 2, loss = ")


def test_weights_of_the_rows_matter(digits):
    X, y, X_test, _ = digits
    heavy = np.where(y == 3, 50.0, 1.0)
    model = NaiveBayesClassifier(objective="cross_entropy", max_bins=3, max_iter=10, random_state=0)
    plain = model.fit(X, y).predict(X_test)
    weighted = model.fit(X, y, sample_weight=heavy).predict(X_test)
    assert (weighted == 3).sum() > (plain == 3).sum()
    by_class = model.set_params(class_weight={3: 50.0}).fit(X, y).predict(X_test)
    assert (by_class == 3).sum() > (plain == 3).sum()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"objective": "hybrid", "n_bits": 4}, "objective='hybrid' needs tables of log-probabilities"),
        ({"objective": "margin", "margin": -1.0}, "'margin' parameter"),
        ({"objective": "margin", "batch_size": 0}, "'batch_size' parameter"),
        ({"objective": "svm"}, "'objective' parameter"),
    ],
)
def test_wrong_settings(digits, options, message):
    X, y, _, _ = digits
    with pytest.raises(ValueError, match=message):
        NaiveBayesClassifier(**options).fit(X, y)


def test_partial_fit_is_for_the_likelihood():
    assert not hasattr(NaiveBayesClassifier(discretizer=None, objective="margin"), "partial_fit")
