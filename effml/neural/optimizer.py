"""Adam in one pass over memory, with the clip of shadow weights that follows each step."""

import numpy as np

from effml._cext.neural_training import adam_step
from effml._optim import Adam

__all__ = ["ClippedAdam"]


class ClippedAdam(Adam):
    """Adam whose quantised weights stay in [-1, 1]: the clip follows the step, gradients are not clipped.

    Parameters
    ----------
    parameters : dict of str to contiguous ndarray
    clipped : set of str
        Names of the parameters that are clipped.
    decayed : set of str
        Names of the parameters to which `step` applies its `decay`.

    Examples
    --------
    >>> import numpy as np
    >>> parameters = {"w": np.array([0.9])}
    >>> adam = ClippedAdam(parameters, clipped={"w"}, decayed=set())
    >>> adam.step(parameters, {"w": np.array([-5.0])}, 0.5)
    >>> parameters["w"].tolist()
    [1.0]
    """

    def __init__(self, parameters, *, clipped, decayed):
        super().__init__(parameters)
        self.clipped, self.decayed = sorted(clipped), sorted(decayed)

    def step(self, parameters, gradients, rate, decay=0.0) -> None:
        """Move every parameter that has a gradient against it; `decay` is the factor of an L2 penalty."""
        self.n_steps += 1
        rate = rate * np.sqrt(1 - self.beta2**self.n_steps) / (1 - self.beta1**self.n_steps)
        for name, gradient in gradients.items():
            first, second = self.moments[name]
            limit = 1.0 if name in self.clipped else np.inf
            adam_step(
                parameters[name].reshape(-1),
                gradient.reshape(-1),
                first.reshape(-1),
                second.reshape(-1),
                rate,
                1 - self.beta1,
                1 - self.beta2,
                self.epsilon,
                decay if name in self.decayed else 0.0,
                -limit,
                limit,
            )
