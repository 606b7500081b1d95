"""Real data sets for examples, tests and benchmarks.

- ``_files``: sets stored as ``name.npz`` in the folder that the environment variable ``EFFML_DATA`` names
- ``_remote``: the same sets on OpenML, and the small ones that ship with scikit-learn
- ``_loader``: the two public functions, which choose between them
"""

from effml.datasets._loader import list_datasets, load_dataset

__all__ = ["list_datasets", "load_dataset"]
