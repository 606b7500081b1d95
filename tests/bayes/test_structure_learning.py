"""Structure learning: candidates, penalty, dropped features, gradients and determinism."""

import numpy as np
import pytest
from effml._cext.bayes_training import Trainer, training_arrays
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

import effml
from effml.bayes import NaiveBayesClassifier, TANClassifier
from effml.bayes.structure import DROPPED
from effml.bayes.structure_learning import (
    _Options,
    _start_tables,
    _StructureLogits,
    candidate_parents,
    check_image_shape,
    check_ordering,
    learn_structure,
)
from effml.bayes.training import OBJECTIVES, Objective, Schedule
from effml.bayes.training import settings as training_settings

N_STATES = np.array([3, 1, 4, 2, 3, 2])


def rows(n=400, seed=0, n_classes=3):
    """Return codes and classes: feature 2 follows feature 0, feature 4 follows feature 3, feature 5 is noise."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, size=n)
    codes = rng.integers(0, N_STATES, size=(n, len(N_STATES)))
    codes[:, 0] = (y + rng.integers(0, 2, size=n)) % 3
    codes[:, 2] = np.where(rng.random(n) < 0.8, (codes[:, 0] + y) % 4, codes[:, 2])
    codes[:, 4] = np.where(rng.random(n) < 0.8, (codes[:, 3] + y) % 3, codes[:, 4])
    return codes.astype(np.uint8), y


def learned(**parameters):
    given = {"objective": "hybrid", "margin_weight": 10.0, "margin": 1.0, "max_iter": 20, "random_state": 0}
    return TANClassifier(structure="learned", discretizer=None, n_states=N_STATES, **given | parameters)


# -- candidates -------------------------------------------------------------------------------------------------------


@given(
    st.permutations(range(9)),
    st.sampled_from(["all", "random", "informative", "nearest"]),
    st.integers(1, 10),
    st.integers(0, 2**20),
)
@settings(max_examples=80, deadline=None)
def test_candidates_come_earlier_so_that_every_choice_is_acyclic(ordering, kind, n_candidates, seed):
    rng = np.random.RandomState(seed)
    n_states = rng.randint(1, 4, size=9)
    information = rng.random_sample((9, 9))
    found = candidate_parents(
        kind,
        n_candidates,
        np.array(ordering),
        n_states,
        information=information + information.T,
        image_shape=(3, 3),
        random_state=rng,
    )
    place = np.argsort(ordering)
    for feature, candidates in enumerate(found):
        useful = [j for j in range(9) if place[j] < place[feature] and n_states[j] > 1]
        assert set(candidates.tolist()) <= set(useful)
        assert len(candidates) == (len(useful) if kind == "all" else min(n_candidates, len(useful)))
        assert candidates.tolist() == sorted(set(candidates.tolist()))


def test_informative_candidates_are_those_of_largest_information():
    information = np.arange(25.0).reshape(5, 5)
    information = np.maximum(information, information.T)
    found = candidate_parents("informative", 2, np.arange(5), np.full(5, 2), information=information)
    assert [each.tolist() for each in found] == [[], [0], [0, 1], [1, 2], [2, 3]]


def test_nearest_candidates_are_the_pixels_around():
    found = candidate_parents("nearest", 2, np.arange(12), np.full(12, 2), image_shape=(3, 4))
    assert [found[k].tolist() for k in (0, 1, 5, 11)] == [[], [0], [1, 4], [7, 10]]


def test_random_candidates_follow_the_seed():
    draw = lambda seed: candidate_parents(  # noqa: E731
        "random", 3, np.arange(20), np.full(20, 2), random_state=np.random.RandomState(seed)
    )
    assert all(np.array_equal(a, b) for a, b in zip(draw(0), draw(0), strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(draw(0), draw(1), strict=True))


# -- what is learned --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["all", "random", "informative", "nearest"])
def test_the_learned_network_has_at_most_one_earlier_parent(kind):
    X, y = rows()
    ordering = np.array([4, 2, 0, 5, 1, 3])
    model = learned(candidate_parents=kind, n_candidates=2, ordering=ordering, image_shape=(2, 3)).fit(X, y)
    place = np.argsort(ordering)
    assert all(parent < 0 or place[parent] < place[i] for i, parent in enumerate(model.parents_))
    assert (model.parents_ >= 0).any()
    assert [table.ndim for table in model.log_tables_] == [3 if p >= 0 else 2 for p in model.parents_]


def test_dependent_features_are_joined():
    X, y = rows(2000)
    model = learned(candidate_parents="all", max_iter=60).fit(X, y)
    assert model.parents_[[2, 4]].tolist() == [0, 3]


def test_the_likelihood_recovers_the_chow_liu_tree():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, size=3000)
    tree = [-1, 0, 1, 1, 0, 4]
    codes = np.empty((len(y), 6), dtype=np.uint8)
    for i, parent in enumerate(tree):
        codes[:, i] = rng.integers(0, 3, size=len(y))
        if parent >= 0:
            copied = rng.random(len(y)) < 0.7
            codes[copied, i] = (codes[copied, parent] + y[copied]) % 3
    model = TANClassifier(
        structure="learned", candidate_parents="all", ordering="cmi", objective="likelihood", discretizer=None,
        structure_max_iter=60, random_state=0,
    ).fit(codes, y)  # fmt: skip
    chow_liu = TANClassifier(discretizer=None).fit(codes, y)
    assert model.parents_.tolist() == chow_liu.parents_.tolist() == tree


def test_the_likelihood_recovers_the_chow_liu_tree_of_letter(published):
    X, y, *_ = published("letter_mdl")
    options = {"discretizer": None, "n_states": X.max(axis=0).astype(int) + 1}
    chow_liu = TANClassifier(**options).fit(X, y)
    learned = TANClassifier(
        structure="learned", candidate_parents="all", ordering="cmi", structure_max_iter=40, random_state=0, **options
    ).fit(X, y)
    useful = options["n_states"] > 1  # any parent of a feature of one state is as good as none
    np.testing.assert_array_equal(learned.parents_[useful], chow_liu.parents_[useful])


def test_a_large_size_penalty_gives_naive_bayes():
    X, y = rows()
    model = learned(size_penalty=1.0, max_iter=60).fit(X, y)
    naive = NaiveBayesClassifier(
        discretizer=None, n_states=N_STATES, objective="hybrid", margin_weight=10.0, margin=1.0, max_iter=60,
        random_state=0,
    ).fit(X, y)  # fmt: skip
    assert model.parents_.tolist() == [-1] * 6
    assert model.n_parameters_ == naive.n_parameters_
    np.testing.assert_array_equal(model.predict(X), naive.predict(X))


def test_penalties_buy_smaller_networks():
    X, y = rows()
    sizes = [
        learned(size_penalty=penalty, drop_features=True, max_iter=60).fit(X, y).n_parameters_
        for penalty in (0.0, 1e-2, 1.0)
    ]
    assert sizes[0] > sizes[1] > sizes[2]


def test_dropped_features_have_no_table_and_compile_to_the_same_labels():
    X, y = rows()
    model = learned(size_penalty=2e-2, drop_features=True, max_iter=60, n_bits=4, objective="margin").fit(X, y)
    dropped = np.flatnonzero(model.parents_ == DROPPED)
    assert 0 < len(dropped) < len(N_STATES)
    assert all(model.log_tables_[i].size == 0 for i in dropped)
    assert model.n_parameters_ == 3 + sum(model.log_tables_[i].size for i in range(6))

    unread = dropped[~np.isin(dropped, model.parents_)]
    other = X.copy()
    other[:, unread] = (other[:, unread] + 1) % N_STATES[unread]
    np.testing.assert_array_equal(model.predict(other), model.predict(X))
    agreement = effml.compile_c(model, input_dtype="uint8").agreement(X)
    assert agreement.n_equal == agreement.n_rows == len(X)


@pytest.mark.parametrize("bits", [{}, {"n_bits": 3}, {"n_bits": 4, "integer_bits": 2}])
def test_a_dropped_feature_may_still_be_a_parent_in_c(bits):
    X, y = rows()
    model = TANClassifier(structure=[-2, -2, 0, -1, 3, -2], discretizer=None, n_states=N_STATES, **bits).fit(X, y)
    assert [table.shape[0] for table in model.log_tables_] == [0, 0, 4, 2, 3, 0]
    agreement = effml.compile_c(model).agreement(np.vstack([X, X + 3]))
    assert agreement.n_equal == agreement.n_rows == 2 * len(X)


def test_the_heaviest_penalty_keeps_one_feature():
    X, y = rows()
    model = learned(size_penalty=100.0, drop_features=True, max_iter=60).fit(X, y)
    assert (model.parents_ == DROPPED).sum() == 5


@pytest.mark.parametrize("kind", ["random", "informative"])
def test_the_same_seed_gives_the_same_model(kind):
    X, y = rows()
    fit = lambda seed, n_jobs=1: learned(  # noqa: E731
        candidate_parents=kind, n_candidates=2, random_state=seed, n_jobs=n_jobs
    ).fit(X, y)
    first, again, threads, other = fit(0), fit(0), fit(0, n_jobs=2), fit(1)
    assert first.parents_.tolist() == again.parents_.tolist() == threads.parents_.tolist()
    for a, b, c in zip(first.log_tables_, again.log_tables_, threads.log_tables_, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
    assert any(not np.array_equal(a, b) for a, b in zip(first.log_tables_, other.log_tables_, strict=True))


def test_threads_change_nothing():
    X, y = rows()
    results = [learn(X, y, n_threads=n_threads) for n_threads in (1, 3)]
    for a, b in zip(results[0].log_tables, results[1].log_tables, strict=True):
        np.testing.assert_array_equal(a, b)
    assert results[0].loss_curve == results[1].loss_curve


def learn(X, y, *, objective="hybrid", max_iter=10, **options):
    return learn_structure(
        X,
        y,
        None,
        candidates=candidate_parents("all", None, np.arange(6), N_STATES),
        n_states=N_STATES,
        n_classes=3,
        objective=Objective.named(objective, margin=1.0, margin_weight=10.0, sharpness=10.0),
        schedule=Schedule(max_iter=max_iter),
        random_state=np.random.RandomState(0),
        **options,
    )


def test_learning_lowers_the_loss_and_tells_how_sure_it_is():
    X, y = rows()
    result = learn(X, y, max_iter=40, may_drop=True)
    assert result.loss_curve[-1] < 0.8 * result.loss_curve[0]
    assert [len(p) for p in result.probabilities] == [2, 3, 3, 4, 5, 6]  # the one-state feature is nobody's parent
    for p in result.probabilities:
        assert p.sum() == pytest.approx(1)


def test_the_estimator_trains_new_tables_on_what_is_learned():
    X, y = rows()
    model = learned(ordering=None, candidate_parents="all", structure_max_iter=10).fit(X, y)
    fixed = TANClassifier(
        structure=learn(X, y).parents, discretizer=None, n_states=N_STATES, objective="hybrid", margin_weight=10.0,
        margin=1.0, max_iter=20, random_state=0,
    ).fit(X, y)  # fmt: skip
    np.testing.assert_array_equal(model.parents_, fixed.parents_)
    for a, b in zip(model.log_tables_, fixed.log_tables_, strict=True):
        np.testing.assert_array_equal(a, b)


# -- gradients --------------------------------------------------------------------------------------------------------


def trainer_over(options, buffer, n_rows, objective):
    """Return a trainer of all options' tables."""
    trained = np.append(options.parent[:-1] != DROPPED, True).astype(np.uint8)
    trainer = Trainer(
        buffer,
        3,
        N_STATES.astype(np.int64),
        options.start,
        np.maximum(options.parent, -1),
        options.first,
        trained,
        training_settings(objective, None),
        n_rows,
        1,
    )
    trainer.prepare()
    return trainer


def mixed_loss(weights, tables, options, codes, y, objective):
    """Return the mean loss where every feature adds its options' tables, times their weights."""
    n_classes, prior = 3, tables[-1]
    scores = np.tile(prior[:n_classes], (len(codes), 1))
    for option in range(len(options.parent) - 1):
        feature, parent = options.feature[option], options.parent[option]
        row = codes[:, feature].astype(int)
        if parent >= 0:
            row = row * N_STATES[parent] + codes[:, parent]
        scores += weights[option] * tables[options.first[option] + row, :n_classes]
    every = np.arange(len(y))
    own = scores[every, y]
    z = objective.sharpness * (objective.margin - own[:, None] + scores)
    z[every, y] = -np.inf
    margin = np.logaddexp.reduce(z, axis=1) / objective.sharpness
    cross_entropy = np.logaddexp.reduce(scores, axis=1) - own
    loss = objective.margin_weight * np.maximum(margin, 0) - objective.generative * own
    return np.mean(loss + objective.cross_entropy * cross_entropy)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("may_drop", [False, True])
def test_gradients_of_the_option_weights_equal_central_differences(name, may_drop):
    codes, y = rows(60)
    candidates = candidate_parents("all", None, np.arange(6), N_STATES)
    options = _Options(candidates, N_STATES, 3, may_drop)
    objective = Objective.named(name, margin=2.0, margin_weight=3.0, sharpness=4.0)
    rng = np.random.RandomState(3)
    buffer, (logits, _, tables, *_) = training_arrays(options.first[-1] + 1, 3, np.float64)
    _start_tables(options, logits, tables, codes, y, np.ones(len(y)), N_STATES)
    logits[:] = rng.normal(size=logits.shape)
    trainer = trainer_over(options, buffer, len(y), objective)
    best = np.array([rng.randint(a, b) for a, b in zip(options.start[:-2], options.start[1:-1], strict=True)])
    selected = np.append(best, options.start[-2])
    uniform = np.full(len(y), 1 / len(y))
    trainer.batch(codes, y.astype(np.int32), uniform, np.arange(len(y)), 0, len(y), selected, 0.0, True)

    weights = np.zeros(len(options.parent) - 1)
    weights[best] = 1
    step = 1e-5
    alone = np.diff(options.start)[:-1] == 1
    for option in range(len(weights)):
        if alone[options.feature[option]]:  # a feature without a choice needs no gradient
            continue
        ends = []
        for moved in (step, -step):
            changed = weights.copy()
            changed[option] += moved
            ends.append(mixed_loss(changed, tables, options, codes, y, objective))
        assert trainer.option_gradients[option] == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-7)


def test_the_logits_step_along_the_gradient_of_draw_and_expected_size():
    """The first step of Adam is the sign of the gradient, so its size is read from the first moment."""
    options = _Options(candidate_parents("all", None, np.arange(6), N_STATES), N_STATES, 3, True)
    logits = _StructureLogits(options, size_penalty=1e-2)
    rng = np.random.RandomState(0)
    logits.phi = rng.normal(size=logits.phi.shape)
    phi = logits.phi.copy()
    selected = logits.draw(0.7, rng)
    slope = rng.normal(size=len(options.parent))
    noise = np.where(options.live, logits.z, 1.0)
    gumbel = 0.7 * np.log(noise) - phi  # up to a constant a row, which a softmax does not see

    def surrogate(at):
        masked = np.where(options.live, at, -np.inf)
        z = softmax(np.where(options.live, (at + gumbel) / 0.7, -np.inf), axis=1)
        by_option = np.append(slope[:-1], 0.0)[options.grid]
        size = np.append(options.size, 0.0)[options.grid]
        return (z * by_option).sum() + 1e-2 * (softmax(masked, axis=1) * size).sum()

    logits.step(slope)
    gradient = logits.m / (1 - 0.9)
    for index in zip(*np.nonzero(options.live), strict=True):
        ends = []
        for moved in (1e-5, -1e-5):
            at = phi.copy()
            at[index] += moved
            ends.append(surrogate(at))
        assert gradient[index] == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=1e-6)
    chosen = selected[:-1] - options.start[:-2]
    np.testing.assert_array_equal(chosen, np.argmax(logits.z, axis=1))


def test_the_expected_size_counts_table_entries():
    options = _Options([np.array([], int), np.array([0])], np.array([3, 4]), 5, True)
    logits = _StructureLogits(options, 0.0)
    assert logits.expected_size() == pytest.approx(3 * 5 / 2 + (3 * 4 * 5 + 4 * 5 + 0) / 3)


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ordering", [[0, 1], [0, 1, 2, 3, 4, 4], [1, 2, 3, 4, 5, 6], [[0, 1, 2], [3, 4, 5]]])
def test_an_ordering_that_is_no_permutation_is_an_error(ordering):
    with pytest.raises(ValueError, match=r"ordering=.*permutation of the 6 features"):
        check_ordering(ordering, 6)
    with pytest.raises(ValueError, match="ordering="):
        learned(ordering=ordering).fit(*rows())


@pytest.mark.parametrize("image_shape", [None, (2, 2), (6,), (1, 2, 3)])
def test_an_image_shape_that_does_not_fit_is_an_error(image_shape):
    with pytest.raises(ValueError, match=r"image_shape=.*6 features"):
        check_image_shape(image_shape, 6)
    with pytest.raises(ValueError, match="image_shape="):
        learned(candidate_parents="nearest", image_shape=image_shape).fit(*rows())


def test_a_structure_without_any_table_is_an_error():
    with pytest.raises(ValueError, match="at least one feature with a table, all are -2"):
        TANClassifier(structure=[-2] * 6, discretizer=None, n_states=N_STATES).fit(*rows())


@pytest.mark.parametrize(
    ("structure", "message"),
    [
        ([-3, 0, 0, 0, 0, 0], "-2 .* or another feature from 0 to 5, got -3"),
        ([0, 0, 0, 0, 0, 0], "another feature from 0 to 5, got 0"),
        ([1, 0, 0, 0, 0, 0], "cycle; feature 1"),
        ([6, 0, 0, 0, 0, 0], "got 6"),
    ],
)
def test_structures_that_are_no_forest_are_errors(structure, message):
    with pytest.raises(ValueError, match=message):
        TANClassifier(structure=structure, discretizer=None, n_states=N_STATES).fit(*rows())


@pytest.mark.parametrize(
    "parameters",
    [{"candidate_parents": "near"}, {"n_candidates": 0}, {"size_penalty": -1.0}, {"structure_max_iter": 0}],
)
def test_parameters_out_of_range_are_errors(parameters):
    with pytest.raises(ValueError, match=f"The '{next(iter(parameters))}' parameter"):
        learned(**parameters).fit(*rows())
