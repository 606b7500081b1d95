"""Random forests made small: frequent snippets of their trees, linear models over them, merged thresholds."""

from effml.forests.classifiers import DecisionSnippetClassifier, SplittingStumpClassifier
from effml.forests.merging import merge_forest
from effml.forests.regressor import DecisionSnippetRegressor
from effml.forests.text import plot_snippets, snippet_text
from effml.forests.thresholds import merge_thresholds, merge_to_cuts, snap_to_quantiles
from effml.forests.transformer import DecisionSnippetTransformer

__all__ = [
    "DecisionSnippetClassifier",
    "DecisionSnippetRegressor",
    "DecisionSnippetTransformer",
    "SplittingStumpClassifier",
    "merge_forest",
    "merge_thresholds",
    "merge_to_cuts",
    "plot_snippets",
    "snap_to_quantiles",
    "snippet_text",
]
