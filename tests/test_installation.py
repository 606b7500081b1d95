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
    if name.startswith("effml.deep"):
        pytest.importorskip("torch", reason='the torch bridge needs pip install "effml[torch]"')
    monkeypatch.chdir(tmp_path)  # an example may write files
    results = doctest.testmod(import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert results.failed == 0


def test_the_torch_bridge_says_what_it_needs():
    code = "import sys; sys.modules['torch'] = None; import effml; effml.deep"
    failed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert failed.returncode != 0
    assert 'ImportError: effml.deep needs torch: pip install "effml[torch]"' in failed.stderr


def test_nothing_but_the_bridge_imports_torch():
    code = (
        "import sys, effml, effml.cli, effml.persistence\n"
        "for name in effml.__all__: getattr(effml, name)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)  # -P: not the sources of the folder it runs in


def test_import_costs_next_to_nothing():
    code = "import effml, sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "effml" in loaded
    assert not {"numpy", "scipy", "sklearn", "pandas", "pgmpy", "torch"} & set(loaded)
