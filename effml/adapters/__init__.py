"""Lowering of scikit-learn's own preprocessors, linear models and trees, looked up by class name in effml.export."""
