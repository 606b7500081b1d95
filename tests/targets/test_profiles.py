"""Targets without their tools: estimates, and errors that say what to install."""

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.tree import DecisionTreeClassifier

import effml
from effml.bayes import TANClassifier
from effml.program import CompileError
from effml.program.targets import TARGETS, find_target, missing_tools, run_program
from effml.program.targets.measure import measure_program
from effml.program.targets.worst_case import BoundError, worst_case_instructions


@pytest.fixture
def no_tools(monkeypatch):
    monkeypatch.setattr("effml.program.targets.profiles.shutil.which", lambda command: None)


@pytest.fixture(scope="module")
def model():
    X, y = load_iris(return_X_y=True)
    return TANClassifier(n_bits=3).fit(X, y)


@pytest.mark.parametrize("target", TARGETS)
def test_a_footprint_without_tools_is_estimated_and_says_so(model, target, no_tools):
    host, device = effml.footprint(model), effml.footprint(model, target=target)
    assert device.basis == "estimated" and device.target == target
    assert device.constant_bytes == host.constant_bytes
    assert device.flash_bytes == device.constant_bytes + device.code_bytes
    assert device.operations == host.operations


def test_the_footprint_of_the_host_is_analytic(model):
    footprint = effml.footprint(model)
    assert (footprint.target, footprint.basis, footprint.library_bytes) == ("host", "estimated", 0)


def test_missing_tools_are_named_with_their_packages(model, no_tools):
    program = effml.lower(model)
    assert missing_tools(find_target("avr")) == ["avr-gcc", "avr-size"]
    with pytest.raises(CompileError, match=r"'cortex-m3' needs arm-none-eabi-gcc.*apt-get install gcc-arm-none-eabi"):
        measure_program(program, target="cortex-m3")
    with pytest.raises(CompileError, match="qemu-system-riscv32"):
        run_program(program, np.zeros((1, 4), np.float32), target="riscv32")


def test_unknown_targets_are_refused(model):
    with pytest.raises(ValueError, match=r"target='z80' must be one of \['host', 'cortex-m0', 'cortex-m3'"):
        effml.footprint(model, target="z80")


def test_cycles_have_no_bound(model):
    with pytest.raises(BoundError, match="target='avr' counts cycles"):
        worst_case_instructions(effml.lower(model), target="avr")


def test_estimators_and_the_host_are_refused_with_the_way_out():
    tree = DecisionTreeClassifier(max_depth=2).fit(*load_iris(return_X_y=True))
    for function in (worst_case_instructions, lambda program, target: run_program(program, None, target=target)):
        with pytest.raises(TypeError, match=r"program must be a Program.*effml\.lower"):
            function(tree, target="cortex-m3")
        with pytest.raises(ValueError, match="target='host' has no emulator"):
            function(effml.lower(tree), target="host")
    assert effml.footprint(tree, outputs="proba") == effml.footprint(tree, outputs=("proba",))
