import os

import pytest


@pytest.fixture
def shared_data():
    """Skip where the folder of real sets is absent; its loading is otherwise tested on files made here."""
    if not os.environ.get("EFFML_DATA"):
        pytest.skip("EFFML_DATA is not set: the real data sets are absent")
