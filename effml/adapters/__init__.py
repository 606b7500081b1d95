"""Lowering of scikit-learn's own preprocessors, linear models and trees; looked up by dotted class name (effml.export)."""
