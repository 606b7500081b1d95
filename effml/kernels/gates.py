"""Gates: how much each kernel counts for a row x.

    constant   eta = softmax(u)                           one weighting for all rows: global multiple kernel learning
    softmax    eta(x) = softmax(U relu(V x + v) + u)      U = 0 and u = 0 at the start: the average kernel
    sigmoid    eta_m(x) = 1 / (1 + exp(-z_m)), z as above
    rbf        eta(x) = softmax(-|x - mu_m|^2 / s_m^2)
    uniform    eta = 1 / M, nothing learned: the average kernel

With ``hidden = 0`` z = U x + u, the linear gate of M. Goenen and E. Alpaydin ("Localized multiple kernel learning",
ICML 2008). Each gate is a function of a dict of parameters; `backward` returns their gradients under the same names.
"""

import numpy as np
from scipy.special import expit, softmax

from effml.kernels.bank import median_squared_distance

__all__ = ["GATES", "Gate", "RBFGate", "SigmoidGate"]


def _softmax_backward(eta, to_eta):
    return eta * (to_eta - (eta * to_eta).sum(axis=1, keepdims=True))


class Gate:
    """The uniform gate, and what the others share.

    Attributes
    ----------
    is_learned : bool
        Whether there is anything to learn.
    sees_rows : bool
        Whether the weights differ between rows.
    decayed : tuple of str
        Names of the parameters that weight decay pulls to 0, which is towards the average kernel.
    """

    decayed: tuple = ()
    is_learned = False
    sees_rows = False

    def __init__(self, n_kernels, n_features, hidden):
        self.n_kernels, self.n_features, self.hidden = n_kernels, n_features, hidden

    def start(self, Z, random_state) -> dict:
        """Return the first parameters; `Z` is a sample of standardised rows."""
        return {}

    def forward(self, parameters, Z):
        """Return the weights (B, M) and what `backward` reads."""
        return np.full((len(Z), self.n_kernels), 1 / self.n_kernels, dtype=Z.dtype), None

    def backward(self, parameters, state, to_eta) -> dict:
        """Return the gradient of every parameter from that of the weights (B, M)."""
        return {}


class ConstantGate(Gate):
    """One learned weighting for all rows."""

    is_learned = True
    decayed = ("u",)

    def start(self, Z, random_state):
        return {"u": np.zeros(self.n_kernels)}

    def forward(self, parameters, Z):
        eta = np.repeat(softmax(parameters["u"][None], axis=1), len(Z), axis=0)
        return eta, eta

    def backward(self, parameters, state, to_eta):
        return {"u": _softmax_backward(state, to_eta).sum(axis=0)}


class SoftmaxGate(Gate):
    """Weights that sum to 1, from a network of the row."""

    is_learned = True
    sees_rows = True

    @property
    def decayed(self):
        return ("V", "U", "u") if self.hidden else ("U", "u")

    def start(self, Z, random_state):
        n_in = self.hidden or self.n_features
        start = {"U": np.zeros((self.n_kernels, n_in)), "u": np.zeros(self.n_kernels)}
        if self.hidden:
            scale = np.sqrt(2 / self.n_features)
            start["V"] = random_state.normal(0, scale, (self.hidden, self.n_features))
            start["v"] = np.zeros(self.hidden)
        return start

    def forward(self, parameters, Z):
        hidden = Z
        if self.hidden:
            hidden = np.maximum(Z @ parameters["V"].T + parameters["v"], 0)
        eta = self._weights(hidden @ parameters["U"].T + parameters["u"])
        return eta, (Z, hidden, eta)

    def _weights(self, z):
        return softmax(z, axis=1)

    def _to_z(self, eta, to_eta):
        return _softmax_backward(eta, to_eta)

    def backward(self, parameters, state, to_eta):
        Z, hidden, eta = state
        to_z = self._to_z(eta, to_eta)
        grads = {"U": to_z.T @ hidden, "u": to_z.sum(axis=0)}
        if self.hidden:
            to_hidden = (to_z @ parameters["U"]) * (hidden > 0)
            grads["V"], grads["v"] = to_hidden.T @ Z, to_hidden.sum(axis=0)
        return grads


class SigmoidGate(SoftmaxGate):
    """Weights between 0 and 1, each for itself, from a network of the row."""

    def _weights(self, z):
        return expit(z)

    def _to_z(self, eta, to_eta):
        return eta * (1 - eta) * to_eta


class RBFGate(Gate):
    """Weights that sum to 1, from distances of the row to learned centres."""

    is_learned = True
    sees_rows = True

    def start(self, Z, random_state):
        centres = Z[random_state.choice(len(Z), self.n_kernels, replace=len(Z) < self.n_kernels)]
        log_width = 0.5 * np.log(4 * median_squared_distance(Z))
        return {"mu": np.array(centres, dtype=np.float64), "log_s": np.full(self.n_kernels, log_width)}

    def forward(self, parameters, Z):
        mu, factor = parameters["mu"], np.exp(-2 * parameters["log_s"])
        squared = (Z * Z).sum(axis=1)[:, None] + (mu * mu).sum(axis=1) - 2 * (Z @ mu.T)
        eta = softmax(-squared * factor, axis=1)
        return eta, (Z, squared, factor, eta)

    def backward(self, parameters, state, to_eta):
        Z, squared, factor, eta = state
        to_z = _softmax_backward(eta, to_eta)
        to_squared = -to_z * factor
        to_mu = 2 * (to_squared.sum(axis=0)[:, None] * parameters["mu"] - to_squared.T @ Z)
        return {"mu": to_mu, "log_s": (2 * to_z * squared * factor).sum(axis=0)}


GATES = {
    "uniform": Gate,
    "constant": ConstantGate,
    "softmax": SoftmaxGate,
    "sigmoid": SigmoidGate,
    "rbf": RBFGate,
}
