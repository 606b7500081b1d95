"""The steps a Program is made of: one class, one meaning."""

from effml.program.steps.activations import LiveWeights, Relu, Sigmoid
from effml.program.steps.base import STEP_TYPES, Cost, Step
from effml.program.steps.binning import Bin
from effml.program.steps.combining import Clip, Combine
from effml.program.steps.elementwise import Exp, LogisticShares, LookupEach, MultiplyInput, WeightedAdd
from effml.program.steps.forests import FOREST_LAYOUTS, ForestWalk
from effml.program.steps.images import Conv, PackedConv
from effml.program.steps.itemsets import ClippedAffine, ItemsetMatch, SquareRoot, SumSquares
from effml.program.steps.kernels import KernelRows, SquaredDistances
from effml.program.steps.linear import Affine, Dense, QuantizeInput
from effml.program.steps.lookup import LookupSum, choose_layout
from effml.program.steps.loops import Loop
from effml.program.steps.neural import PackedDense, Requantise, Threshold
from effml.program.steps.outputs import ArgBest, Gather, Positive, Select, Softmax
from effml.program.steps.pooling import Join, Pool
from effml.program.steps.recurrent import GatedSum, Normalise, Pieces
from effml.program.steps.trees import TreeWalk

__all__ = [
    "FOREST_LAYOUTS",
    "STEP_TYPES",
    "Affine",
    "ArgBest",
    "Bin",
    "Clip",
    "ClippedAffine",
    "Combine",
    "Conv",
    "Cost",
    "Dense",
    "Exp",
    "ForestWalk",
    "GatedSum",
    "Gather",
    "ItemsetMatch",
    "Join",
    "KernelRows",
    "LiveWeights",
    "LogisticShares",
    "LookupEach",
    "LookupSum",
    "Loop",
    "MultiplyInput",
    "Normalise",
    "PackedConv",
    "PackedDense",
    "Pieces",
    "Pool",
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
