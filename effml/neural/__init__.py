"""Networks with weights and activations of few bits, trained in numpy, predicting in integers."""

from effml.neural.conv import QuantizedConvClassifier
from effml.neural.mlp import QuantizedMLPClassifier, QuantizedMLPRegressor

__all__ = ["QuantizedConvClassifier", "QuantizedMLPClassifier", "QuantizedMLPRegressor"]
