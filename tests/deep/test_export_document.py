"""The Python examples of the guide to torch modules as C run as printed."""

import re
from pathlib import Path

import pytest

pytest.importorskip("torch", reason='the torch bridge needs pip install "effml[torch]"')

GUIDE = Path(__file__).parents[2] / "docs" / "deep_export.md"


def test_python_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, str(GUIDE), "exec"), {"__name__": "__main__"})
    assert (tmp_path / "out" / "digits.c").exists()
