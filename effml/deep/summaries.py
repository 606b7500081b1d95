"""Readable tables of recipes."""

from effml.deep.plugs import Selective

__all__ = ["recipe_table"]


def recipe_table(techniques, kinds, model=None):
    """Text with one row a technique: name, kinds, where it acts, parameters that are not the default.

    Parameters
    ----------
    techniques : dict of str to technique
    kinds : sequence of classes
    model : nn.Module or None
        Adds the number of parameters as a last line.
    """
    rows = [("technique", "kind", "acts on", "parameters")]
    for name, technique in techniques.items():
        own = ", ".join(kind.__name__ for kind in kinds if isinstance(technique, kind))
        rows.append((name, own, _places(technique, model), _changed(technique)))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)) for row in rows]
    text = "\n".join(f"{line}  {row[3]}".rstrip() for line, row in zip(lines, rows, strict=True))
    if model is None:
        return text
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return f"{text}\n{type(model).__name__}: {trained:,} trained parameters"


def _places(technique, model):
    known = hasattr(technique, "sites_") or hasattr(technique, "swapped_")
    if model is not None and isinstance(technique, Selective) and not known:
        return ", ".join(name or "(the model itself)" for name, _ in technique.chosen(model))
    sites = [f"{name}.{tensor}" if name else tensor for name, tensor, _ in getattr(technique, "sites_", ())]
    return ", ".join(sites + list(getattr(technique, "swapped_", ()))) or "-"


def _changed(technique):
    defaults = {}
    for cls in reversed(type(technique).__mro__):
        code = getattr(cls.__dict__.get("__init__"), "__kwdefaults__", None)
        defaults |= code or {}
    params = technique.get_params(deep=False)
    return ", ".join(
        f"{key}={_short(value)}" for key, value in params.items() if not _same(value, defaults.get(key, ...))
    )


def _same(value, default):
    return value is default or (type(value) is type(default) and value == default)


def _short(value):
    text = repr(value)
    return text if len(text) <= 40 else type(value).__name__
