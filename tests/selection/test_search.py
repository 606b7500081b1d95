import pickle
import warnings

import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, ShuffleSplit, TimeSeriesSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from effml.selection import BudgetError, BudgetSearchCV, pareto_front


def three(toys):
    """Accurate and large, middling, poor and small."""
    return [
        ("large", toys.Toy(miss=0.0, size=1000)),
        ("middle", toys.Toy(), {"miss": [0.2], "size": [300, 400]}),
        ("small", toys.Toy(miss=0.6, size=50)),
    ]


@pytest.mark.parametrize(
    ("budget", "params"),
    [
        (None, {"candidate": "large"}),
        ({"flash_bytes": 1000}, {"candidate": "large"}),
        ({"flash_bytes": 999}, {"candidate": "middle", "miss": 0.2, "size": 300}),
        ("flash=50", {"candidate": "small"}),
        ({"flash_bytes": 5000, "ram_bytes": 39}, {"candidate": "middle", "miss": 0.2, "size": 300}),
        ({"n_operations": 100}, {"candidate": "small"}),
    ],
)
def test_most_accurate_within_budget_wins(toys, table, budget, params):
    search = BudgetSearchCV(three(toys), budget=budget, cv=3).fit(*table)
    assert search.best_params_ == params
    assert search.best_score_ == search.cv_results_["mean_test_score"][search.best_index_]
    assert search.cv_results_["params"][search.best_index_] == params
    assert search.best_footprint_["flash_bytes"] == search.best_estimator_.size
    assert search.rejected_ == []


def test_best_estimator_is_the_users_own(toys, table):
    original = toys.Toy(size=77)
    search = BudgetSearchCV([original], budget=None, cv=3).fit(*table)
    assert type(search.best_estimator_) is toys.Toy
    assert search.best_estimator_ is not original
    assert not hasattr(original, "classes_")
    assert search.best_params_ == {"candidate": "toy"}
    assert search.best_estimator_.n_samples_fit_ == 60


def test_results_hold_negative_footprints_and_readable_parameters(toys, table):
    results = BudgetSearchCV(three(toys), budget=None, cv=3).fit(*table).cv_results_
    assert results["mean_test_flash_bytes"].tolist() == [-1000, -300, -400, -50]
    assert results["mean_test_ram_bytes"].tolist() == [-100, -30, -40, -5]
    assert results["split2_test_bits"].tolist() == [-8000, -2400, -3200, -400]
    assert results["param_candidate"].tolist() == ["large", "middle", "middle", "small"]
    assert results["rank_test_score"].tolist() == [1, 2, 2, 4]
    assert results["failure"].tolist() == [""] * 4
    assert results["max_iter_rung"].tolist() == [0] * 4


def test_front_is_of_score_and_flash(toys, table):
    search = BudgetSearchCV(three(toys), budget=None, cv=3).fit(*table)
    assert search.front_.tolist() == [3, 1, 0]  # ascending in flash; the larger middle one is dominated
    results = search.cv_results_
    points = np.column_stack([results["mean_test_score"], results["mean_test_flash_bytes"]])
    assert sorted(search.front_) == pareto_front(points, minimize=False).tolist()


def test_nothing_fits_names_the_smallest(toys, table):
    search = BudgetSearchCV(three(toys), budget={"flash_bytes": 10, "ram_bytes": 4}, cv=3)
    with pytest.raises(BudgetError, match="the smallest is small with flash_bytes=50, ram_bytes=5") as caught:
        search.fit(*table)
    assert caught.value.smallest["params"] == {"candidate": "small"}
    assert caught.value.smallest["footprint"]["n_operations"] == 100
    assert search.front_.tolist() == [3, 1, 0]


def test_next_candidate_is_taken_when_the_refit_outgrows_the_budget(toys, table):
    # 40 training rows in a fold, 60 in the refit: 100 + 40 bytes fit, 100 + 60 do not
    candidates = [
        ("growing", toys.Toy(size=100, growth=1.0)),
        ("growing_too", toys.Toy(miss=0.1, size=101, growth=1.0)),
        ("steady", toys.Toy(miss=0.5, size=120)),
    ]
    search = BudgetSearchCV(candidates, budget={"flash_bytes": 150}, cv=3).fit(*table)
    assert search.best_params_ == {"candidate": "steady"}
    assert search.best_index_ == 2
    assert search.best_score_ == pytest.approx(0.5)
    assert search.best_footprint_["flash_bytes"] == 120
    assert search.best_estimator_.size == 120
    assert search.rejected_ == [
        (0, "over budget after the refit: {'flash_bytes': 160}"),
        (1, "over budget after the refit: {'flash_bytes': 161}"),
    ]


def test_all_refits_outgrow_the_budget(toys, table):
    candidates = [toys.Toy(size=100, growth=1.0), toys.Toy(miss=0.5, size=95, growth=1.0)]
    search = BudgetSearchCV(candidates, budget={"flash_bytes": 150}, cv=3)
    with pytest.raises(BudgetError) as caught:
        search.fit(*table)
    assert caught.value.smallest["params"] == {"candidate": "toy-2"}
    assert caught.value.smallest["footprint"]["flash_bytes"] == 155
    assert not hasattr(search, "best_estimator_")


def test_without_refit_the_choice_is_still_recorded(toys, table):
    search = BudgetSearchCV(three(toys), budget="flash=500", cv=3, refit=False).fit(*table)
    assert search.best_params_["size"] == 300
    assert search.best_footprint_["flash_bytes"] == 300
    assert search.best_score_ == search.cv_results_["mean_test_score"][1]
    assert not hasattr(search, "best_estimator_")
    assert not hasattr(search, "predict")
    with pytest.raises(BudgetError):
        search.set_params(budget="flash=5").fit(*table)


# ---------------------------------------------------------------- failures


def test_failed_candidates_keep_their_reason_and_are_never_chosen(toys, table):
    candidates = [toys.Unsupported(), toys.Toy(fail="fit"), toys.Toy(miss=0.7)]
    search = BudgetSearchCV(candidates, budget=None, cv=3, error_score=1.0)
    with (
        pytest.warns(FitFailedWarning),
        pytest.warns(UserWarning, match="2 of 3 candidates failed.*unsupported: Value"),
    ):
        search.fit(*table)
    assert search.best_params_ == {"candidate": "toy-2"}  # although the others "score" 1.0
    assert search.front_.tolist() == [2]
    assert search.cv_results_["failure"].tolist() == [
        "ValueError: Unsupported cannot be lowered",
        "RuntimeError: the toy will not fit",
        "",
    ]
    assert np.isnan(search.cv_results_["mean_test_flash_bytes"]).tolist() == [True, True, False]


def test_failures_score_nan_by_default(toys, table):
    search = BudgetSearchCV([toys.Unsupported(), toys.Toy()], budget="flash=1KiB", cv=3)
    with pytest.warns(UserWarning, match="1 of 2 candidates failed"):
        search.fit(*table)
    assert np.isnan(search.cv_results_["mean_test_score"]).tolist() == [True, False]


@pytest.mark.parametrize(("kind", "reason"), [("Unsupported", "cannot be lowered"), ("Toy", "the toy will not fit")])
def test_all_candidates_failing_raises_the_first_reason(toys, table, kind, reason):
    search = BudgetSearchCV([getattr(toys, kind)(fail="fit" if kind == "Toy" else None)] * 2, budget=None, cv=3)
    with pytest.raises(ValueError, match=reason):
        search.fit(*table)


def test_error_score_raise_raises(toys, table):
    with pytest.raises(ValueError, match="Unsupported cannot be lowered"):
        BudgetSearchCV([toys.Toy(), toys.Unsupported()], budget=None, cv=3, error_score="raise").fit(*table)


def test_scoring_that_is_no_number_is_reported(toys, table):
    search = BudgetSearchCV([toys.Toy()], budget=None, cv=3, scoring=lambda estimator, X, y: {"a": 1})
    with pytest.raises(ValueError, match=r"scoring must return one number, got \{'a': 1\}"):
        search.fit(*table)


# ---------------------------------------------------------------- rungs


def rung_candidates(toys):
    """Nine iterative ones of rising size and accuracy, one that is fixed by its grid."""
    grid = [{"size": [100 * i], "miss": [1.8 - 0.1 * i]} for i in range(1, 10)]
    return [("iterative", toys.Toy(), grid), ("fixed", toys.Toy(miss=0.9, size=10), {"max_iter": [1]})]


def test_rungs_raise_max_iter_and_drop_two_thirds(toys, table):
    search = BudgetSearchCV(rung_candidates(toys), budget="flash=750", cv=3, max_iter_rungs=(1, 2, 3)).fit(*table)
    rung = search.cv_results_["max_iter_rung"]
    assert [int((rung == r).sum()) for r in (0, 1, 2, 3)] == [1, 9, 3, 1]
    assert [p["max_iter"] for p in search.cv_results_["params"]] == [1] + [1] * 9 + [2] * 3 + [3]
    # all nine are on the front of their rung, so the best scores go on; those over budget do not
    assert [p["size"] for p in search.cv_results_["params"] if p["max_iter"] == 2] == [500, 600, 700]
    assert search.best_params_ == {"candidate": "iterative", "size": 700, "miss": pytest.approx(1.1), "max_iter": 3}
    assert search.best_estimator_.max_iter == 3


def test_rungs_see_the_same_folds_and_all_samples(toys, table):
    # an unseeded shuffling splitter would give every split() call other folds
    search = BudgetSearchCV([toys.Toy(miss=0.5, growth=1)], budget=None, cv=ShuffleSplit(4), max_iter_rungs=[1, 2])
    calls = []
    split = search.cv.split
    search.cv.split = lambda *args, **kwargs: calls.append(1) or split(*args, **kwargs)
    results = search.fit(*table).cv_results_
    assert len(calls) == 1
    assert np.ptp(results["mean_test_flash_bytes"]) == 0  # the toy's size tells n_samples


def test_rungs_reach_the_last_step_of_a_pipeline(toys, table, monkeypatch):
    pipeline = make_pipeline(FunctionTransformer(), toys.Toy(miss=0.5))
    search = BudgetSearchCV([pipeline], budget=None, cv=3, max_iter_rungs=[1, 4], error_score="raise")
    monkeypatch.setattr("effml.export.footprint", lambda estimator, **options: toys.footprint(estimator[-1]))
    assert search.fit(*table).best_params_ == {"candidate": "toy", "toy__max_iter": 4}


@pytest.mark.parametrize("rungs", [[], [0, 1], [3, 3], [5, 2], [1.5], ["a"], [True]])
def test_wrong_rungs_are_an_error(toys, table, rungs):
    with pytest.raises(ValueError, match="max_iter_rungs must be increasing whole numbers"):
        BudgetSearchCV([toys.Toy()], budget=None, max_iter_rungs=rungs).fit(*table)


# ---------------------------------------------------------------- scikit-learn conventions


def test_groups_reach_the_splitter(toys, table):
    X, y = table
    with pytest.raises(ValueError, match="groups"):
        BudgetSearchCV(three(toys), budget=None, cv=GroupKFold(3)).fit(X, y)
    search = BudgetSearchCV(three(toys), budget=None, cv=GroupKFold(3)).fit(X, y, groups=np.repeat([0, 1, 2], 20))
    assert search.n_splits_ == 3


@pytest.mark.parametrize("cv", [TimeSeriesSplit(3), [(np.arange(30), np.arange(30, 60))], KFold(2, shuffle=True)])
def test_any_splitter_is_taken(toys, table, cv):
    search = BudgetSearchCV(three(toys), budget=None, cv=cv).fit(*table)
    assert search.best_params_ == {"candidate": "large"}


def test_folds_may_come_from_a_generator_even_with_rungs(toys, table):
    folds = ((np.arange(30), np.arange(30, 60)) for _ in range(2))
    search = BudgetSearchCV([toys.Toy()], budget=None, cv=folds, max_iter_rungs=[1, 2]).fit(*table)
    assert search.n_splits_ == 2


def test_sample_weight_goes_where_grid_search_sends_it(toys, table):
    X, y = table
    weight = np.where(X[:, 1] < 0.5, 1e-9, 1.0)  # the toy's mistakes weigh nothing
    search = BudgetSearchCV([toys.Toy(miss=0.5)], budget=None, cv=3, scoring="accuracy")
    search.fit(X, y, sample_weight=weight)
    grid_search = GridSearchCV(toys.Toy(miss=0.5), {}, cv=3, scoring="accuracy").fit(X, y, sample_weight=weight)
    assert search.best_score_ == grid_search.best_score_
    assert search.best_estimator_.sum_of_weights_ == pytest.approx(weight.sum())


def test_refits_after_the_first_get_the_sample_weight(toys, table):
    candidates = [toys.Toy(size=100, growth=1.0), toys.Toy(miss=0.5, size=120)]
    search = BudgetSearchCV(candidates, budget={"flash_bytes": 150}, cv=3, scoring="accuracy")
    search.fit(*table, sample_weight=np.full(60, 2.0))
    assert search.best_estimator_.sum_of_weights_ == 120


def test_metadata_routing_follows_the_requests(toys, table):
    with config_context(enable_metadata_routing=True):
        asking = toys.Toy().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        search = BudgetSearchCV([asking], budget=None, cv=3).fit(*table, sample_weight=np.ones(60))
        assert search.best_estimator_.sum_of_weights_ == 60
        search = BudgetSearchCV([asking], budget=None, cv=GroupKFold(3)).fit(*table, groups=np.repeat([0, 1, 2], 20))
        assert search.best_estimator_.sum_of_weights_ is None


def test_score_uses_scoring_and_measures_nothing(toys, table, monkeypatch):
    search = BudgetSearchCV(three(toys), budget="flash=500", cv=3, scoring="recall").fit(*table)
    monkeypatch.setattr("effml.export.footprint", None)
    X, y = table
    assert search.score(X, y) == pytest.approx(np.mean(search.predict(X)[y == 1]))
    assert type(search.score(X, y)) is float


def test_callable_scoring_decides(toys, table):
    def smallest_wins(estimator, X, y):
        return -estimator.size

    search = BudgetSearchCV(three(toys), budget=None, cv=3, scoring=smallest_wins).fit(*table)
    assert search.best_params_ == {"candidate": "small"}
    assert search.multimetric_ is False


def test_train_scores_are_kept_on_request(toys, table):
    results = BudgetSearchCV(three(toys), budget=None, cv=3, return_train_score=True).fit(*table).cv_results_
    assert results["mean_train_score"][0] == 1.0
    assert results["mean_train_flash_bytes"][0] == -1000


def test_random_state_seeds_what_has_no_seed(toys, table):
    candidates = [("own", toys.Toy(random_state=5, miss=0.9)), ("none", toys.Toy())]
    search = BudgetSearchCV(candidates, budget=None, cv=3, random_state=0)
    seed = search.fit(*table).best_estimator_.random_state
    assert isinstance(seed, int) and seed == search.fit(*table).best_estimator_.random_state
    assert BudgetSearchCV(candidates[:1], budget=None, random_state=0).fit(*table).best_estimator_.random_state == 5
    assert BudgetSearchCV(candidates[1:], budget=None).fit(*table).best_estimator_.random_state is None


def test_clone_and_pickle(toys, table):
    search = BudgetSearchCV(three(toys), budget="flash=500", cv=3)
    assert clone(search).get_params().keys() == search.get_params().keys()
    fitted = pickle.loads(pickle.dumps(clone(search).fit(*table)))
    assert fitted.best_params_ == search.fit(*table).best_params_
    assert (fitted.predict(table[0]) == search.predict(table[0])).all()
    assert fitted.n_features_in_ == 2 and fitted.classes_.tolist() == [0, 1]


def test_names_come_from_classes_and_are_numbered(toys, table):
    candidates = [toys.Toy(), (toys.Toy(), {"size": [1, 2]}), make_pipeline(toys.Unsupported()), ("mine", toys.Toy())]
    search = BudgetSearchCV(candidates, budget=None, cv=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        search.fit(*table)
    assert search.cv_results_["param_candidate"].tolist() == ["toy-1", "toy-2", "toy-2", "unsupported", "mine"]


@pytest.mark.parametrize(
    ("candidates", "error", "message"),
    [
        ([], ValueError, "at least one estimator"),
        ("tree", TypeError, "must be a list"),
        (LinearRegression(), TypeError, "must be a list"),
        ([LinearRegression], TypeError, "each must be an estimator"),
        ([("name",)], TypeError, "each must be an estimator"),
        ([(LinearRegression(), {}, {})], TypeError, "each must be an estimator"),
        ([("a", LinearRegression()), ("a", LinearRegression())], ValueError, "'a' comes twice"),
        ([(LinearRegression(), {"depth": [1]})], ValueError, "has no parameter depth"),
        ([(LinearRegression(), {"candidate": [1]})], ValueError, "a name the search itself uses"),
    ],
)
def test_wrong_candidates_are_an_error(candidates, error, message, table):
    with pytest.raises(error, match=message):
        BudgetSearchCV(candidates, budget=None).fit(*table)


def test_classifiers_and_regressors_do_not_mix(toys, table):
    with pytest.raises(ValueError, match="all classifiers or all regressors"):
        BudgetSearchCV([toys.Toy(), LinearRegression()], budget=None).fit(*table)


def test_wrong_budget_is_an_error_before_any_fit(toys, table):
    with pytest.raises(ValueError, match="unknown quantity 'rom'"):
        BudgetSearchCV([toys.Toy(fail="fit")], budget="rom=1").fit(*table)
