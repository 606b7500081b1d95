"""The steps a Program is made of: one class, one meaning."""

from effml.program.steps.activations import LiveWeights, Relu, Sigmoid
from effml.program.steps.base import STEP_TYPES, Cost, Step
from effml.program.steps.binning import Bin
from effml.program.steps.elementwise import Exp, LogisticShares, LookupEach, MultiplyInput, WeightedAdd
from effml.program.steps.forests import FOREST_LAYOUTS, ForestWalk
from effml.program.steps.images import Conv, PackedConv
from effml.program.steps.itemsets import ClippedAffine, ItemsetMatch, SquareRoot, SumSquares
from effml.program.steps.kernels import KernelRows, SquaredDistances
from effml.program.steps.linear import Affine, Dense, QuantizeInput
from effml.program.steps.lookup import LookupSum, choose_layout
from effml.program.steps.neural import PackedDense, Requantise, Threshold
from effml.program.steps.outputs import ArgBest, Gather, Positive, Select, Softmax
from effml.program.steps.trees import TreeWalk

__all__ = [
    "FOREST_LAYOUTS",
    "STEP_TYPES",
    "Affine",
    "ArgBest",
    "Bin",
    "ClippedAffine",
    "Conv",
    "Cost",
    "Dense",
    "Exp",
    "ForestWalk",
    "Gather",
    "ItemsetMatch",
    "KernelRows",
    "LiveWeights",
    "LogisticShares",
    "LookupEach",
    "LookupSum",
    "MultiplyInput",
    "PackedConv",
    "PackedDense",
    "Positive",
    "QuantizeInput",
    "Relu",
    "Requantise",
    "Select",
    "Sigmoid",
    "Softmax",
    "SquareRoot",
    "SquaredDistances",
    "Step",
    "SumSquares",
    "Threshold",
    "TreeWalk",
    "WeightedAdd",
    "choose_layout",
]
