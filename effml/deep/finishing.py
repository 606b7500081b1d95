"""From a model in training to the plain one that ships: parametrizations baked, batch norm folded, hooks gone."""

import warnings

import torch
from torch import fx, nn
from torch.nn.utils import fusion, parametrize

from effml.deep.hooks import remove_hooks

__all__ = ["bake", "fold_batch_norm", "recalibrate_batch_norm"]

_FUSIONS = (
    (nn.modules.conv._ConvNd, fusion.fuse_conv_bn_eval),
    (nn.Linear, fusion.fuse_linear_bn_eval),
)


def bake(model):
    """Replace every parametrized tensor by its present value; returns the model, changed in place."""
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            _give_own_class(module)
            for tensor in list(module.parametrizations):
                parametrize.remove_parametrizations(module, tensor, leave_parametrized=True)
    return model


def _give_own_class(module):
    """torch gives a parametrized module a class that deep copies share and that removing the parametrization edits."""
    shared = type(module)
    body = {key: value for key, value in vars(shared).items() if key not in ("__dict__", "__weakref__")}
    module.__class__ = type(shared.__name__, shared.__bases__, body)


def plain(model):
    """Hooks removed, weights baked, eval mode."""
    return bake(remove_hooks(model)).eval()


def fold_batch_norm(model):
    """Fold batch norm into the convolution or linear layer before it, in place; the model must be in eval mode.

    Only where the layer's output goes nowhere else, and both are called once. The norm becomes an identity. Weights
    that took a few levels still do, a set of its own in every output channel.

    Returns
    -------
    list of (layer, norm) names

    Warns
    -----
    UserWarning
        If the model has batch norm and torch.fx cannot trace it; it is then left as it is.
    """
    if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        return []
    try:
        graph = fx.Tracer().trace(model)
    except Exception as error:  # whatever stops the tracer in the model's own code
        warnings.warn(f"batch norm is not folded, since torch.fx cannot trace the model: {error}", stacklevel=2)
        return []
    modules = dict(model.named_modules())
    calls = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    folded = []
    for node in graph.nodes:
        pair = _foldable(node, modules, calls)
        if pair is not None:
            layer, norm = pair
            fuse = next(function for types, function in _FUSIONS if isinstance(modules[layer], types))
            _put(model, layer, fuse(modules[layer], modules[norm]))
            _put(model, norm, nn.Identity())
            folded.append(pair)
    return folded


def _foldable(node, modules, calls):
    """(layer, norm) if `node` is a batch norm that can go into the layer before it."""
    if node.op != "call_module" or not isinstance(modules[str(node.target)], nn.modules.batchnorm._BatchNorm):
        return None
    norm, before = str(node.target), node.args[0]
    if modules[norm].running_var is None or before.op != "call_module" or len(before.users) != 1:
        return None
    layer = str(before.target)
    known = any(isinstance(modules[layer], types) for types, _ in _FUSIONS) and not modules[layer].training
    transposed = isinstance(modules[layer], nn.modules.conv._ConvTransposeNd)
    return (layer, norm) if known and not transposed and calls.count(layer) == calls.count(norm) == 1 else None


def _put(model, name, module):
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


@torch.no_grad()
def recalibrate_batch_norm(model, batches):
    """Measure the running statistics of every batch norm again, as plain means over `batches`; returns the model.

    Parameters
    ----------
    model : nn.Module
    batches : iterable of (inputs, ...) or of inputs
        A few hundred training rows are enough.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return model
    momenta, modes = [norm.momentum for norm in norms], [(module, module.training) for module in model.modules()]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative mean
        norm.train()
    for batch in batches:
        model(batch[0] if isinstance(batch, (tuple, list)) else batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    for module, training in modes:
        module.training = training
    return model
