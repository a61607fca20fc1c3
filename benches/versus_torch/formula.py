"""Tensors made from a key by a formula, for weights that need no file.

FNV-1a of the key seeds a SplitMix64 stream; each output becomes a number in [-1, 1).
"""

import math

import numpy as np
import torch


def fnv1a(key):
    value = 0xCBF29CE484222325
    for byte in key.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def tensor(key, shape, offset=0.0, scale=1.0):
    """The f32 tensor of a key: offset + scale * r, r uniform in [-1, 1)."""
    count = math.prod(shape)
    with np.errstate(over="ignore"):
        z = np.uint64(fnv1a(key)) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(
            0x9E3779B97F4A7C15
        )
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    unit = (z >> np.uint64(40)).astype(np.float64) / 2.0**23 - 1.0
    return torch.from_numpy((offset + scale * unit).astype(np.float32).reshape(shape))


def fill(model, salt):
    """Gives every tensor of a model its formula values, by its name in the state dict."""
    norms = {
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)
    }
    state = model.state_dict()
    for name, value in state.items():
        owner, _, leaf = name.rpartition(".")
        shape = tuple(value.shape)
        if leaf == "num_batches_tracked":
            value.fill_(5)
            continue
        if leaf == "running_mean":
            offset, scale = 0.0, 0.3
        elif leaf == "running_var":
            offset, scale = 1.0, 0.5
        elif owner in norms:
            offset, scale = (0.6, 0.3) if leaf == "weight" else (0.0, 0.2)
        elif len(shape) == 4:
            offset, scale = 0.0, math.sqrt(6 / (shape[1] * shape[2] * shape[3]))
        elif len(shape) == 2:
            offset, scale = 0.0, 4 * math.sqrt(3 / shape[1])
        else:
            offset, scale = 0.0, 0.1
        value.copy_(tensor(f"{salt}/{name}", shape, offset, scale))
    return model


def images(key, count):
    return tensor(key, (count, 3, 32, 32), 0.0, 2.0)
