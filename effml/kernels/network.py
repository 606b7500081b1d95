"""The network: kernels of a row to landmarks, weighted by the gate, whitened, then a small dense network.

    eta = gate(z)                                         (B, M)
    k   = sum_m eta_m kappa_m          or side by side    (B, L) or (B, M L)
    phi = T k - c                                     (B, r)   T: inverse square root of the landmarks' kernel, scaled
    o   = W_n relu(... relu(W_1 phi + b_1)) + b_n         (B, n_outputs)

phi is the Nystroem map of the average kernel while the gate is uniform: a linear network on it with an L2 penalty is
the kernel machine itself, seen through L landmarks. T is kept out of the rows: W_1 T is formed once a batch.

Source: Z. Zhang, "LMKL-Net: A Fast Localized Multiple Kernel Learning Solver via Deep Neural Networks", arXiv
1805.08656; ICPR 2020. Whitening, learned landmarks and the decay of the gate to the uniform one are ours.
"""

from dataclasses import dataclass, field

import numpy as np

__all__ = ["Network", "whitening"]

SMALLEST_EIGENVALUE = 1e-5  # of the landmarks' kernel over the largest one; directions below are left out
FEATURE_SCALE = 10.0  # of phi: with unit length Adam's steps of W_1 were too short (letter, 1,500 rows: 2.6 points)


@dataclass
class Network:
    """Forward and backward passes over a dict of parameters.

    Attributes
    ----------
    bank : KernelBank
    gate : Gate
    combine : {"sum", "concat"}
    transforms : list of arrays (r_b, L), or None
        T, of the sum or of each kernel that stands beside the others; None leaves the kernels as they are.
    centre : array (r,)
        c.
    n_layers : int
        Dense layers: W1, b1, ... of `parameters`.
    learned : set of str
        Which of "A" (landmarks) and "log_gamma" are learned.
    """

    bank: object
    gate: object
    combine: str
    transforms: list | None
    centre: np.ndarray
    n_layers: int
    learned: set = field(default_factory=set)

    @property
    def feature_scale(self) -> float:
        """How many times longer phi is than the Nystroem map."""
        return 1.0 if self.transforms is None else FEATURE_SCALE

    def set_bank(self, parameters):
        """Move landmarks and bandwidths to the parameters' values."""
        if "log_gamma" in self.learned:
            self.bank.set_log_gamma(parameters["log_gamma"])
        if self.learned:
            self.bank.set_landmarks(parameters.get("A", self.bank.landmarks))

    def first_layer(self, parameters):
        """Return weight (H, L or M L) and bias (H,) of the first layer on the weighted kernels themselves."""
        weight, bias = parameters["W1"], parameters["b1"]
        bias = bias - weight @ self.centre
        if self.transforms is None:
            return weight, bias
        blocks = np.split(weight, np.cumsum([len(T) for T in self.transforms])[:-1], axis=1)
        return np.hstack([part @ T for part, T in zip(blocks, self.transforms, strict=True)]), bias

    def _to_first_layer(self, to_weight):
        """Return the gradient (H, r) of W_1 from that of W_1 T."""
        if self.transforms is None:
            return to_weight
        blocks = np.split(to_weight, len(self.transforms), axis=1)
        return np.hstack([part @ T.T for part, T in zip(blocks, self.transforms, strict=True)])

    def forward(self, parameters, Z, dropout=0.0, random_state=None):
        """Return the outputs (B, n_outputs) and what `backward` reads."""
        eta, gate_state = self.gate.forward(parameters, Z)
        kernels = self.bank.forward(Z)
        weighted = self.weigh(eta, kernels.kernels)
        weight, bias = self.first_layer(parameters)
        layers, masks, out = [weighted], [], weighted @ weight.T + bias
        for layer in range(2, self.n_layers + 1):
            mask = out > 0
            if dropout:
                kept = random_state.random_sample(out.shape) >= dropout
                mask = (mask & kept).astype(out.dtype) / out.dtype.type(1 - dropout)
            hidden = out * mask
            layers.append(hidden)
            masks.append(mask)
            out = hidden @ parameters[f"W{layer}"].T + parameters[f"b{layer}"]
        return out, (eta, gate_state, kernels, weight, layers, masks)

    def weigh(self, eta, kernels):
        """Return the weighted sum of the kernels (B, L), or the weighted kernels side by side (B, M L)."""
        if self.combine == "sum":
            return np.matmul(eta[:, None], kernels)[:, 0]
        return (eta[:, :, None] * kernels).reshape(len(eta), -1)

    def backward(self, parameters, state, to_out) -> dict:
        """Return the gradient of every parameter from that of the outputs."""
        eta, gate_state, kernels, weight, layers, masks = state
        grads = {}
        for layer in range(self.n_layers, 1, -1):
            grads[f"W{layer}"], grads[f"b{layer}"] = to_out.T @ layers[layer - 1], to_out.sum(axis=0)
            to_out = (to_out @ parameters[f"W{layer}"]) * masks[layer - 2]
        grads["b1"] = to_out.sum(axis=0)
        grads["W1"] = self._to_first_layer(to_out.T @ layers[0]) - np.outer(grads["b1"], self.centre)
        if self.learned or self.gate.is_learned:
            to_kernels = (to_out @ weight).reshape(len(eta), -1, kernels.kernels.shape[2])
            to_eta, to_landmarks, to_log_gamma = self.bank.backward(kernels, eta, to_kernels, bool(self.learned))
            grads |= self.gate.backward(parameters, gate_state, to_eta)
            found = {"A": to_landmarks, "log_gamma": to_log_gamma}
            grads |= {name: found[name] for name in self.learned}
        return grads


def whitening(kernel, smallest=SMALLEST_EIGENVALUE) -> np.ndarray:
    """Return T (r, L) with ``T K T' = I`` on the span of a landmarks' kernel, smallest directions last.

    Examples
    --------
    >>> import numpy as np
    >>> K = np.array([[1.0, 0.5], [0.5, 1.0]])
    >>> T = whitening(K)
    >>> np.allclose(T @ K @ T.T, np.eye(2))
    True
    """
    kernel = np.asarray(kernel, dtype=np.float64)
    values, vectors = np.linalg.eigh((kernel + kernel.T) / 2)
    kept = values > smallest * max(values[-1], 1e-300)
    if not kept.any():  # callables may give anything; keep the columns as they are
        return np.eye(len(kernel))
    return (vectors[:, kept] / np.sqrt(values[kept])).T[::-1].copy()
