"""Forward hooks that are sure to go away: a manager that removes what it added, and a sweep for copies of models."""

__all__ = ["Hooks", "remove_hooks"]


class _Managed:
    """The function of a hook, marked so that `remove_hooks` finds it, also on a deep copy of the model."""

    def __init__(self, function):
        self.function = function

    def __call__(self, *args):
        return self.function(*args)

    def __deepcopy__(self, memo):
        return self


class Hooks:
    """Hooks added through this object are removed together, at the end of a ``with`` block or by :meth:`remove`.

    Examples
    --------
    >>> import torch
    >>> from effml.deep import Hooks
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())
    >>> shapes = []
    >>> with Hooks() as hooks:
    ...     _ = hooks.on_forward(model[0], lambda module, inputs, output: shapes.append(tuple(output.shape)))
    ...     _ = model(torch.zeros(5, 2))
    >>> shapes
    [(5, 3)]
    """

    def __init__(self):
        self._handles = []

    def on_forward(self, module, function):
        """Call ``function(module, inputs, output)`` after each forward pass; a result that is not None is the output.

        Returns
        -------
        handle
            With a ``remove`` method, for hooks that should go earlier than the others.
        """
        return self._add(module.register_forward_hook, function)

    def before_forward(self, module, function):
        """Call ``function(module, inputs)`` before each forward pass; what it returns, if anything, are the inputs."""
        return self._add(module.register_forward_pre_hook, function)

    def on_backward(self, module, function):
        """Call ``function(module, grad_inputs, grad_outputs)`` when the gradients of a module's outputs are known."""
        return self._add(module.register_full_backward_hook, function)

    def capture(self, model, names, into):
        """Keep the output of each named module of the last forward pass in the dict `into`, under its name.

        Raises
        ------
        ValueError
            If the model has no module of that name.
        """
        modules = dict(model.named_modules())
        for name in names:
            if name not in modules:
                raise ValueError(f"the model has no module {name!r}; it has {', '.join(filter(None, modules))}")
            self.on_forward(modules[name], lambda module, inputs, output, name=name: into.__setitem__(name, output))

    def remove(self):
        """Remove every hook added so far."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _add(self, register, function):
        handle = register(_Managed(function))
        self._handles.append(handle)
        return handle

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.remove()


_TABLES = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")


def remove_hooks(model):
    """Remove the hooks that any `Hooks` object left on a model or on what it was copied from; returns the model."""
    for module in model.modules():
        for table in (getattr(module, name) for name in _TABLES):
            for key in [key for key, hook in table.items() if isinstance(hook, _Managed)]:
                del table[key]
    return model
