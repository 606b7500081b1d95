"""From a torch module to a list of operations: traced by torch.fx, shapes known, batch norm and activations folded in.

Elements of a value are counted as torch lays them out, without the axis of rows. What only moves elements (flatten,
permute, slices) is a table of where each one comes from and costs nothing.
"""

import operator
from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import fx

from effml.deep.lowering_rules import FUNCTIONS, METHODS, is_leaf, module_rule
from effml.program.frame import LoweringError

__all__ = ["Graph", "Op", "read_graph"]


@dataclass(frozen=True, eq=False)
class Op:
    """One operation.

    Attributes
    ----------
    kind : str
        "dense", "conv", "pool", "scale", "activation", "add", "multiply", "join", "places", "lstm", "softmax".
    name : str
        Of the value, as the recorded arrays have it.
    path : str
        Where it stands in the module, for messages.
    inputs : tuple of str
    shape : tuple
        Of the value, without rows.
    fields : dict
    activation : Activation or None
        What is done to the sums of "dense", "conv", "scale" and "add" at once.
    before : str
        The recorded value before the activation.
    """

    kind: str
    name: str
    path: str
    inputs: tuple
    shape: tuple
    fields: dict = field(default_factory=dict)
    activation: object = None
    before: str = ""


@dataclass(frozen=True, eq=False)
class Graph:
    """The operations of a module.

    Attributes
    ----------
    ops : list of Op
        In their order.
    source : str
        Name of the input.
    result : str
        Name of the output.
    link : {"", "softmax", "sigmoid"}
        What stood behind the output and was left out.
    traced : fx.GraphModule
    derived : dict of str to (str, callable)
        Values that torch does not compute: from which other value, and how.
    """

    ops: list
    source: str
    result: str
    link: str
    traced: fx.GraphModule
    derived: dict = field(default_factory=dict)

    def record(self, rows: np.ndarray) -> dict:
        """Return the float32 values of all operations and of the input on rows, (n_rows, *shape)."""
        held = _Recorder(self.traced).record(torch.as_tensor(rows))
        held = {name: value[0] if _is_pair(value) else value for name, value in held.items()}
        wanted = {self.source, *(op.name for op in self.ops), *(op.before for op in self.ops)} - {"", *self.derived}
        wanted |= {source for source, _ in self.derived.values() if source not in self.derived}
        values = {name: held[name].detach().numpy().astype(np.float32, copy=False) for name in wanted}
        for name, (source, function) in self.derived.items():
            values[name] = function(values[source]).astype(np.float32)
        return values


def _is_pair(value) -> bool:
    """Return whether a value is what an LSTM gives: its outputs and its state."""
    return isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], torch.Tensor)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module, path):
        return is_leaf(module) or super().is_leaf_module(module, path)


class _Recorder(fx.Interpreter):
    """Runs a traced module and keeps every value, by the name of its node."""

    def record(self, rows):
        self.held = {}
        try:
            with torch.no_grad():
                self.run(rows)
        except LoweringError as error:  # to whose text the interpreter has added where in its graph that was
            raise LoweringError(str(error).partition("\n")[0]) from error
        return self.held

    def run_node(self, node):
        try:
            self.held[node.name] = value = super().run_node(node)
        except (RuntimeError, TypeError, IndexError, ValueError) as error:
            raise LoweringError(f"{_path_of(node)} does not run on the given rows: {error}") from error
        return value


def read_graph(module, shape) -> Graph:
    """Return the operations of a module for rows of a shape.

    Parameters
    ----------
    module : torch.nn.Module
        In eval mode; float32 on the CPU.
    shape : tuple of int
        Of one row.

    Raises
    ------
    LoweringError
        Naming what has no lowering, its path in the module, and the cure.
    """
    tracer = _Tracer()
    if tracer.is_leaf_module(module, ""):
        module = torch.nn.Sequential(module)
    try:
        graph = tracer.trace(module)
    except Exception as error:  # whatever the module's own code raises on a proxy
        raise LoweringError(
            f"{type(module).__name__}.forward cannot be traced by torch.fx: {error}. Take tests on values and shapes "
            "out of forward, or make the part that has them a module of its own with an attribute lowers_as"
        ) from error
    traced = fx.GraphModule(module, graph)
    traced.graph.eliminate_dead_code()
    graph = traced.graph
    held = _Recorder(traced).record(torch.zeros(2, *shape))
    sources = [node for node in graph.nodes if node.op == "placeholder"]
    if len(sources) != 1:
        raise LoweringError(f"{type(module).__name__}.forward takes {len(sources)} inputs; one can be lowered")
    modules = dict(module.named_modules())
    nodes = [node for node in graph.nodes if node.op in ("call_module", "call_function", "call_method", "get_attr")]
    ops = [op for op in (_op(node, modules, held) for node in nodes) if op is not None]
    result = next(node for node in graph.nodes if node.op == "output").args[0]
    if not isinstance(result, fx.Node) or not isinstance(held[result.name], torch.Tensor):
        raise LoweringError(f"{type(module).__name__}.forward must return one tensor")
    return _finish(ops, sources[0].name, result.name, traced)


def _path_of(node) -> str:
    """Return where a node stands: the path of its module, and the function if it is one."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = str(stack[-1][0]) if stack else ""
    if node.op == "call_module":
        return str(node.target)
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    return f"{path or 'forward'}: {name}"


def _op(node, modules, held):
    """Return the operation of a node; None for what is no tensor: sizes and numbers."""
    value = held[node.name]
    is_pair = _is_pair(value) and node.op == "call_module"
    if not (isinstance(value, torch.Tensor) or is_pair) or _is_state(node, held):
        return None
    path = _path_of(node)
    if (lstm := _last_state(node, held)) is not None:
        sequence = held[lstm.name][0]
        order = np.arange(sequence[0].numel()).reshape(sequence.shape[1:])[-1]
        return Op("places", node.name, path, (lstm.name,), order.shape, {"order": order})
    if node.op == "get_attr":
        raise LoweringError(f"{path}: tensors that are no weights of a layer cannot be lowered; put it into a layer")
    if node.op == "call_module":
        module = modules[str(node.target)]
        rule = module_rule(module, path)
        what = type(module).__name__
    else:
        rule = (METHODS if node.op == "call_method" else FUNCTIONS).get(node.target)
        what, module = path.rsplit(": ", 1)[-1], None
    if rule is None:
        raise LoweringError(
            f"{path}: {what} cannot be lowered; use linear layers, convolutions, pooling, batch norm, LSTM, known "
            "activations, sums and concatenations, or give the module an attribute lowers_as"
        )
    call = Call(path, module, node, held)
    kind, inputs, fields, activation = rule(call)
    activation = None if activation is None else replace(activation, path=path)
    shape = _row_shape(value[0] if is_pair else value, path)
    return Op(kind, node.name, path, tuple(inputs), shape, fields, activation)


def _is_state(node, held):
    """Return whether a node is the first part of an LSTM's state, all layers of it."""
    return _item(node) == 0 and _item(node.args[0]) == 1 and _is_pair(held[node.args[0].args[0].name])


def _last_state(node, held):
    """Return the LSTM whose last layer's hidden state behind the last step a node is, else None."""
    if _item(node) is None or not _is_state(node.args[0], held):
        return None
    lstm = node.args[0].args[0].args[0]
    value = held[node.args[0].name]
    is_last = node.args[1] in (-1, len(value) - 1) and value.shape[-1] == held[lstm.name][0].shape[-1]
    return lstm if is_last else None


def _item(node):
    """Return the number that a node takes out of its argument, else None."""
    is_item = node.op == "call_function" and node.target is operator.getitem and isinstance(node.args[1], int)
    return node.args[1] if is_item else None


def _row_shape(value, path):
    if value.ndim < 1 or value.shape[0] != 2:
        raise LoweringError(f"{path}: rows do not stay on the first axis; keep the batch there")
    return tuple(value.shape[1:])


@dataclass(frozen=True, eq=False)
class Call:
    """What a rule reads: the node, its module and the values of a run on two rows."""

    path: str
    module: object
    node: fx.Node
    held: dict

    def argument(self, position, name, default=None):
        """Return an argument, nodes replaced by their values of the run."""
        node = self.node
        value = node.args[position] if len(node.args) > position else node.kwargs.get(name, default)
        return fx.node.map_arg(value, lambda n: self.held[n.name]) if value is not None else None

    def tensors(self):
        """Return the names of the arguments that are tensors of rows."""
        given = [(n.name, self.held[n.name]) for n in self.node.all_input_nodes]
        return [name for name, value in given if isinstance(value, torch.Tensor) or _is_pair(value)]

    def shape(self, name):
        """Return the shape of a row of a value."""
        return tuple(self.held[name].shape[1:])

    def order(self):
        """Return where each element of the result comes from, by doing the same to the numbers of the elements."""
        source = self.tensors()[0]
        value = self.held[source]
        if isinstance(value, tuple):  # an LSTM's pair: the sequence is its value
            return self._first_of_pair(value)
        numbers = torch.arange(value[0].numel(), dtype=torch.float64).reshape(1, *value.shape[1:]).expand(value.shape)
        given = {**self.held, source: numbers.contiguous()}
        args = fx.node.map_arg(self.node.args, lambda n: given[n.name])
        kwargs = fx.node.map_arg(self.node.kwargs, lambda n: given[n.name])
        if self.node.op == "call_module":
            out = self.module(*args, **kwargs)
        elif self.node.op == "call_method":
            out = getattr(args[0], self.node.target)(*args[1:], **kwargs)
        else:
            out = self.node.target(*args, **kwargs)
        if out.shape[:1] != value.shape[:1] or not torch.equal(out[0], out[1]):
            raise LoweringError(f"{self.path}: rows do not stay on the first axis; keep the batch there")
        return out[0].numpy().astype(np.int64)

    def _first_of_pair(self, value):
        place = self.node.args[1]
        if place == 0:
            return np.arange(value[0][0].numel()).reshape(value[0].shape[1:])
        raise LoweringError(
            f"{self.path}: of an LSTM its outputs can be read, and of its state h[-1], the last layer's; with "
            "batch_first=True and one direction"
        )


# -- passes -----------------------------------------------------------------------------------------------------------


def _finish(ops, source, result, traced):
    """Leave out what does nothing, fold batch norm and activations into what they follow."""
    ops, result = _without_nothing(ops, result)
    ops = _needed(_places_at_once(ops), result)
    link = ""
    if ops and ops[-1].name == result and (ops[-1].kind == "softmax" or _is_sigmoid(ops[-1])):
        link = "softmax" if ops[-1].kind == "softmax" else "sigmoid"
        result = ops[-1].inputs[0]
        ops = ops[:-1]
    if any(op.kind == "softmax" for op in ops):
        path = next(op.path for op in ops if op.kind == "softmax")
        raise LoweringError(f"{path}: softmax can be lowered at the end of a module only")
    ops, derived = _rising_first(ops)
    ops, renamed = _fold(ops, result)
    return Graph(ops, source, renamed.get(result, result), link, traced, derived)


def _is_sigmoid(op):
    return op.kind == "activation" and op.activation.name == "sigmoid" and int(np.prod(op.shape)) == 1


def _without_nothing(ops, result):
    alias, kept = {}, []
    for op in ops:
        inputs = tuple(alias.get(name, name) for name in op.inputs)
        if op.kind == "nothing":
            alias[op.name] = inputs[0]
        else:
            kept.append(replace(op, inputs=inputs))
    return kept, alias.get(result, result)


def _places_at_once(ops):
    """Let what moves elements that were moved before read them where they first were."""
    known = {}
    for op in ops:
        first = known.get(op.inputs[0])
        if op.kind == "places" and first is not None and first.kind == "places":
            order = first.fields["order"].ravel()[op.fields["order"]]
            op = replace(op, inputs=first.inputs, fields={"order": order})
        known[op.name] = op
    return list(known.values())


def _needed(ops, result):
    """Return the operations that the result needs."""
    needed, kept = {result}, []
    for op in reversed(ops):
        if op.name in needed:
            needed.update(op.inputs)
            kept.append(op)
    return kept[::-1]


def _rising_first(ops):
    """Let what rises with its input come before the maximum pooling that it follows: there it folds into weights."""
    known, derived = {}, {}
    n_readers = Counter(name for op in ops for name in op.inputs)
    for op in ops:
        pool, function = known.get(op.inputs[0]), _rising(op)
        if function is None or pool is None or pool.kind != "pool" or pool.fields["mean"] or n_readers[pool.name] > 1:
            known[op.name] = op
            continue
        source = pool.inputs[0]
        if source not in known:  # the input of the network
            known[op.name] = op
            continue
        inner = replace(op, name=f"{op.name} before {pool.name}", inputs=(source,), shape=known[source].shape)
        derived[inner.name] = (source, function)
        del known[pool.name]
        known[inner.name] = inner
        known[op.name] = replace(pool, name=op.name, inputs=(inner.name,))
    return list(known.values()), derived


def _rising(op):
    """Return what an operation does to values (n_rows, channels, ...), if it never falls, else None."""
    if op.kind == "activation" and op.activation.name in ("clip", "sign"):
        return op.activation
    if op.kind == "scale" and (op.fields["scale"] > 0).all():
        scale, offset = op.fields["scale"], op.fields["offset"]
        return lambda values: (values.swapaxes(1, -1) * scale + offset).swapaxes(1, -1)
    return None


def _fold(ops, result):
    """Merge batch norm into weights before it, then activations into sums, where nobody else reads between."""
    readers: dict[str, int] = {result: 1}
    for op in ops:
        for name in op.inputs:
            readers[name] = readers.get(name, 0) + 1
    renamed: dict[str, str] = {}
    kept: dict[str, Op] = {}
    for op in ops:
        op = replace(op, inputs=tuple(renamed.get(name, name) for name in op.inputs))
        first = kept.get(op.inputs[0])
        alone = first is not None and readers.get(op.inputs[0], 0) == 1 and op.inputs[0] != renamed.get(result, result)
        if alone and op.kind == "scale" and first.kind in ("dense", "conv") and first.activation is None:
            merged = _with_scale(first, op)
        elif alone and op.kind == "activation" and first.kind in _SUMS and first.activation is None:
            merged = replace(first, name=op.name, activation=op.activation, before=first.name)
        else:
            kept[op.name] = op
            continue
        del kept[first.name]
        kept[merged.name] = merged
        readers[merged.name] = readers.get(op.name, 0)
        renamed[first.name] = merged.name
    return list(kept.values()), renamed


_SUMS = ("dense", "conv", "scale", "add")


def _with_scale(first, op):
    """Return a dense layer or convolution with the scale and offset of each channel behind it in its weights."""
    if len(op.fields["scale"]) > 1 and first.kind == "dense" and len(first.shape) > 1:
        raise LoweringError(f"{op.path}: the norm of {first.path} runs over another axis than its outputs")
    scale, fields = op.fields["scale"], dict(first.fields)
    size = np.abs(fields["bias"] * scale) + op.fields.get("size", np.abs(op.fields["offset"]))
    fields["weight"] = fields["weight"] * scale
    fields["bias"] = fields["bias"] * scale + op.fields["offset"]
    fields["size"] = size  # of what the bias is made of, for bounds on rounding
    return replace(first, name=op.name, fields=fields)
