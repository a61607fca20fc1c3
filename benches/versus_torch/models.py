"""The networks by name, initialised, written for PyTorch: the other side of the comparison.

Parameter names, shapes and order are those of the checkpoints that the project reads, so that the
same weights can be put into both programs. Images are [N, 3, 32, 32] in either memory format; those of
the networks under `imagenet/`, which are torchvision's own but for MobileNetV1, are larger.
"""

from functools import partial

import torch
from torch import nn

from compact import VGG, MobileNetV1, MobileNetV2, ShuffleV1, ShuffleV2
from residual import Bottleneck, FourStageResNet, ResNet, WideBasicBlock, WideResNet



def torchvisions(name):
    def build(classes):
        # Only these networks need the package.
        import torchvision

        return getattr(torchvision.models, name)(num_classes=classes)

    return build


BUILDERS = {
    **{
        f"resnet{depth}": partial(ResNet, depth, 16, (16, 32, 64))
        for depth in (8, 14, 20, 32, 44, 56, 110)
    },
    **{f"resnet{depth}x4": partial(ResNet, depth, 32, (64, 128, 256)) for depth in (8, 32)},
    **{
        f"wrn_{depth}_{widen}": partial(WideResNet, depth, widen)
        for depth in (16, 40)
        for widen in (1, 2)
    },
    "ResNet18": partial(FourStageResNet, WideBasicBlock, (2, 2, 2, 2)),
    "ResNet50": partial(FourStageResNet, Bottleneck, (3, 4, 6, 3)),
    "vgg8": partial(VGG, (1, 1, 1, 1, 1)),
    "vgg11": partial(VGG, (1, 1, 2, 2, 2)),
    "vgg13": partial(VGG, (2, 2, 2, 2, 2)),
    "vgg16": partial(VGG, (2, 2, 3, 3, 3)),
    "vgg19": partial(VGG, (2, 2, 4, 4, 4)),
    "MobileNetV2": MobileNetV2,
    "ShuffleV1": ShuffleV1,
    "ShuffleV2": ShuffleV2,
    **{f"imagenet/ResNet{depth}": torchvisions(f"resnet{depth}") for depth in (18, 34, 50, 101)},
    "imagenet/MobileNetV1": MobileNetV1,
    "imagenet/mobilenet_v2": torchvisions("mobilenet_v2"),
}
NAMES = tuple(BUILDERS)


def initialize(model):
    """Each network's own initialisation: mostly He's normal, by the number of outputs."""
    if isinstance(model, (ShuffleV1, ShuffleV2, MobileNetV1)):
        return model
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            if isinstance(model, (VGG, MobileNetV2)):
                nn.init.normal_(module.weight, 0, 0.01)
            if isinstance(model, (VGG, MobileNetV2, WideResNet)):
                nn.init.zeros_(module.bias)
    return model


def build(name, classes=100):
    """The network of a name, with fresh weights from PyTorch's current random state."""
    if name not in BUILDERS:
        raise SystemExit(f"no model {name!r} here; there are {', '.join(NAMES)}")
    return initialize(BUILDERS[name](classes))


def prepared(name, channels_last):
    """A network in f32 with its weights in the memory format that its images will have."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return build(name).to(memory_format=layout)
