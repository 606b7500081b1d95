"""What is tested is the package as installed, examples in docstrings included."""

import doctest
import os
import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import effml

MODULES = sorted(
    module.name for module in pkgutil.walk_packages(effml.__path__, "effml.") if "._cext" not in module.name
)


@pytest.mark.skipif(not os.environ.get("EFFML_TEST_INSTALLED"), reason="EFFML_TEST_INSTALLED is not set")
def test_effml_comes_from_site_packages():
    assert Path(effml.__file__).parent.parent.name == "site-packages"


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # an example may write files
    results = doctest.testmod(import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert results.failed == 0


def test_import_costs_next_to_nothing():
    code = "import effml, sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "effml" in loaded
    assert not {"numpy", "scipy", "sklearn", "pandas", "pgmpy"} & set(loaded)
