"""Small torch modules of every kind that lowers, with random weights and norms that are not the identity."""

import torch
import torch.nn.functional as F
from torch import nn


class Residual(nn.Module):
    """Strided, depthwise and 1x1 convolutions, norms, a residual sum, a concatenation, global pooling."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8)
        self.depthwise, self.second_norm = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8)
        self.point, self.swish = nn.Conv2d(8, 8, 1), nn.Hardswish()
        self.drop, self.head = nn.Dropout(), nn.Linear(16, 5)

    def forward(self, x):
        x = F.relu(self.norm(self.first(x)))
        y = self.point(self.swish(self.second_norm(self.depthwise(x)))) + x
        y = torch.cat([F.relu6(y), F.max_pool2d(x, 3, stride=1, padding=1)], 1)
        return self.head(self.drop(torch.flatten(F.adaptive_avg_pool2d(y, 1), 1)))


class Pieces(nn.Module):
    """Slices, sums with numbers, a mean over positions, a norm by itself."""

    def __init__(self):
        super().__init__()
        self.norm, self.inner, self.head = nn.BatchNorm1d(4), nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, x):
        left, right = x[:, :, :6], x[:, :, 1:7]
        y = self.inner(torch.relu(self.norm(left)) * 0.5 + torch.sigmoid(right))  # (n, 4, 4)
        return self.head((1 - y).transpose(1, 2).mean(2))


def signs(n_in, n_out):
    """Return a linear layer of -a and +a."""
    layer = nn.Linear(n_in, n_out, bias=False)
    layer.weight.data = torch.where(layer.weight.data < 0, -0.3, 0.3)
    return layer


class Sign(nn.Module):
    """A sign with a gradient of its own, as binary networks have."""

    lowers_as = "sign"

    def forward(self, x):
        return torch.where(x < 0, -1.0, 1.0)


def modules():
    """Return {name: (module, input shape)}."""
    image = [nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.ReLU()]
    line = [nn.Conv1d(4, 6, 3, padding=1), nn.BatchNorm1d(6), nn.ReLU(), nn.AvgPool1d(2), nn.Conv1d(6, 8, 3, stride=2)]
    odd = [nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(0, 1), dilation=(1, 2), groups=2), nn.Hardsigmoid()]
    made = {
        "residual": (Residual(), (3, 9, 9)),
        "pieces": (Pieces(), (4, 7)),
        "image": (nn.Sequential(*image, nn.Flatten(), nn.Linear(8, 10)), (1, 8, 8)),
        "line": (nn.Sequential(*line, nn.ReLU6(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 1)), (4, 13)),
        "odd": (nn.Sequential(*odd, nn.AvgPool2d(2, 1, 1), nn.Flatten(), nn.LazyLinear(3)), (4, 7, 6)),
        "norm first": (nn.Sequential(nn.BatchNorm1d(20), nn.Linear(20, 8), nn.SiLU(), nn.Linear(8, 3)), (20,)),
        "flat rows": (nn.Sequential(nn.Unflatten(1, (2, 5, 5)), *odd_free(), nn.Flatten(), nn.LazyLinear(4)), (50,)),
        "probabilities": (nn.Sequential(nn.Linear(20, 16), nn.Tanh(), nn.Linear(16, 3), nn.Softmax(1)), (20,)),
        "pooled signs": (nn.Sequential(*_pooled_signs(), nn.Flatten(), nn.LazyLinear(4)), (2, 8, 8)),
        "binary": (
            nn.Sequential(nn.Linear(20, 40), nn.BatchNorm1d(40), Sign(), signs(40, 24), nn.BatchNorm1d(24), Sign())
            .append(signs(24, 5))
            .append(nn.BatchNorm1d(5)),
            (20,),
        ),
    }
    for module, shape in made.values():
        _randomise(module, shape)
    return made


def _pooled_signs():
    """Norms and signs behind pooling, as binary networks have them: a rising one and one that falls, too."""
    first = [nn.Conv2d(2, 6, 3), nn.MaxPool2d(2), nn.BatchNorm2d(6), Sign()]
    binary = nn.Conv2d(6, 5, 2, bias=False)
    binary.weight.data = torch.where(binary.weight.data < 0, -0.2, 0.2)
    rising = nn.BatchNorm2d(5)
    rising.is_rising = True
    return [*first, binary, nn.MaxPool2d(2, 1), rising, Sign()]


def odd_free():
    return [nn.Conv2d(2, 4, 2, padding="same"), nn.Hardtanh(), nn.MaxPool2d(3, 2, 1)]


def _randomise(module, shape):
    module(torch.randn(2, *shape))
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                part.running_mean.normal_()
                part.running_var.uniform_(0.5, 2)
                part.weight.normal_()
                if getattr(part, "is_rising", False):
                    part.weight.abs_()
                part.bias.normal_()
    module.eval()
