"""The Python examples of README and guide run as printed."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


DOCUMENTS = ["README.md", "docs/guide.md", "docs/bayes.md", "docs/deep.md", "docs/itemsets.md", "docs/neural.md"]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_python_blocks_run(name, tmp_path, monkeypatch):
    if name == "docs/deep.md":
        pytest.importorskip("torch", reason='the torch bridge needs pip install "effml[torch]"')
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(
        r"^```python\n(.*?)^```", (ROOT / name).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    assert blocks
    for block in blocks:
        exec(compile(block, name, "exec"), {"__name__": "__main__"})


def test_links_lead_somewhere():
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
