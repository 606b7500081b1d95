"""Supervised binning: numeric columns become a few integer codes that tell the classes apart."""

from effml.discretization.bottleneck import BottleneckDiscretizer
from effml.discretization.mdlp import MDLPDiscretizer

__all__ = ["BottleneckDiscretizer", "MDLPDiscretizer"]
