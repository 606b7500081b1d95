"""Tests of the bridge to torch; skipped where torch is not installed."""

import pytest

pytest.importorskip("torch")
