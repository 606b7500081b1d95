"""What the tests of the torch bridge share; without torch every module there is skipped, and says so."""

import pytest

try:
    import torch
except ImportError:
    torch = None


class WithoutTorch(pytest.Module):
    """A module of tests that is skipped before it is imported."""

    def collect(self):
        pytest.skip('the torch bridge needs pip install "effml[torch]"', allow_module_level=True)


def pytest_pycollect_makemodule(module_path, parent):
    return WithoutTorch.from_parent(parent, path=module_path) if torch is None else None


@pytest.fixture(autouse=True)
def one_thread():
    """Small networks are fastest on one thread, and their sums then come in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def digits():
    """scikit-learn's digits as float32 Tensors in [0, 1]: (X_train, y_train), (X_test, y_test)."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(
        (X / 16).astype("float32"), y, test_size=0.25, random_state=0, stratify=y
    )
    return tuple(tuple(map(torch.as_tensor, part)) for part in ((X_train, y_train), (X_test, y_test)))
