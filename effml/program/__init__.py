"""Fitted models as programs: run, price, print as C, compile, save. Knows no estimator."""

from effml.program.buffers import Buffer, InputSpec, Output
from effml.program.cgen import CSource, generate_c, write_files
from effml.program.compile import CompiledProgram, CompileError
from effml.program.footprint import Footprint, footprint_of
from effml.program.frame import Builder, Column, Frame, LoweringError
from effml.program.passes import deployable, with_input_dtype
from effml.program.program import Program
from effml.program.steps import STEP_TYPES, Step

__all__ = [
    "STEP_TYPES",
    "Buffer",
    "Builder",
    "CSource",
    "Column",
    "CompileError",
    "CompiledProgram",
    "Footprint",
    "Frame",
    "InputSpec",
    "LoweringError",
    "Output",
    "Program",
    "Step",
    "deployable",
    "footprint_of",
    "generate_c",
    "with_input_dtype",
    "write_files",
]
