"""scikit-learn's conventions for the integer linear classifier."""

from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from effml.adapters.quantized import QuantizedLinearClassifier


@parametrize_with_checks(
    [
        QuantizedLinearClassifier(LogisticRegression()),
        QuantizedLinearClassifier(make_pipeline(StandardScaler(), LogisticRegression()), weight_bits=6),
    ]
)
def test_scikit_learn_conventions(estimator, check):
    check(estimator)
