"""Sphinx: `pip install ".[docs]" && sphinx-build -W docs docs/_build`, from the top of the repository."""

import re

import effml

project = "effml"
author = copyright = "The effml developers"
release = version = effml.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc", "sphinx_gallery.gen_gallery"]
exclude_patterns = ["_build"]
suppress_warnings = ["ref.ref", "ref.term"]  # of methods inherited from scikit-learn, which refer to its own pages
myst_heading_anchors = 3
autosummary_generate = True
autodoc_default_options = {"members": True}
numpydoc_show_class_members = False
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "abort_on_example_error": True,
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,
}
html_theme = "furo"
html_title = "effml"

OUTSIDE = {"../CONTRIBUTING.md": "contributing.md", "../benchmarks/README.md": "benchmarks.md"}


def link_pages(app, docname, source):
    """Point links to files beside docs/, right where the sources are read as they are, to the pages that hold them."""
    for path, page in OUTSIDE.items():
        source[0] = source[0].replace(f"({path}", f"({page}")


def escape_learned_attributes(app, what, name, obj, options, lines):
    """Keep names as n_features_in_ in shapes and |x| from being read as links; within backticks they are safe."""
    for number, line in enumerate(lines):
        parts = line.split("`")
        parts[::2] = [re.sub(r"(?<=\w)_(?![\w`])", r"\\_", part).replace("|", r"\|") for part in parts[::2]]
        lines[number] = "`".join(parts)


def setup(app):
    app.connect("autodoc-process-docstring", escape_learned_attributes, priority=400)  # before numpydoc
    app.connect("source-read", link_pages)
