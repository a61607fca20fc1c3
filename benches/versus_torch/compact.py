"""The plain and the compact networks for 32-pixel images: VGG, MobileNetV2, ShuffleNet 1 and 2; MobileNetV1."""

import torch
import torch.nn.functional as F
from torch import nn


def conv(inputs, outputs, kernel, stride=1, groups=1):
    return nn.Conv2d(
        inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False
    )


class VGG(nn.Module):
    """Five groups of 3x3 convolutions with batch norm (Simonyan and Zisserman, 2015).

    The fourth of the pools is left out at 32 pixels, and the last group is averaged.
    """

    def __init__(self, counts, classes):
        super().__init__()
        inputs = 3
        for index, (count, width) in enumerate(zip(counts, (64, 128, 256, 512, 512))):
            layers = []
            for _ in range(count):
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width)]
                layers.append(nn.ReLU(inplace=True))
                inputs = width
            setattr(self, f"block{index}", nn.Sequential(*layers))
        self.classifier = nn.Linear(512, classes)

    def forward(self, x):
        x = F.max_pool2d(self.block0(x), 2)
        x = F.max_pool2d(self.block1(x), 2)
        x = F.max_pool2d(self.block2(x), 2)
        return self.classifier(self.block4(self.block3(x)).mean((2, 3)))


class InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow (Sandler et al., 2018), with plain ReLU."""

    def __init__(self, inputs, outputs, stride, expansion):
        super().__init__()
        width = inputs * expansion
        self.conv = nn.Sequential(
            conv(inputs, width, 1),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            conv(width, width, 3, stride, groups=width),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            conv(width, outputs, 1),
            nn.BatchNorm2d(outputs),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x):
        return self.conv(x).add_(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):
    """MobileNetV2 at half width with expansion 6; its last map is 2x2."""

    # Expansion, channels at full width, blocks, stride of the first.
    SETTINGS = (
        (1, 16, 1, 1),
        (6, 24, 2, 1),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )

    def __init__(self, classes):
        super().__init__()
        self.conv1 = nn.Sequential(conv(3, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU(inplace=True))
        inputs, blocks = 16, []
        for expansion, width, count, stride in self.SETTINGS:
            stage = []
            for position in range(count):
                step = stride if position == 0 else 1
                stage.append(InvertedResidual(inputs, width // 2, step, expansion))
                inputs = width // 2
            blocks.append(nn.Sequential(*stage))
        self.blocks = nn.Sequential(*blocks)
        self.conv2 = nn.Sequential(
            conv(inputs, 1280, 1), nn.BatchNorm2d(1280), nn.ReLU(inplace=True)
        )
        self.classifier = nn.Sequential(nn.Linear(1280, classes))

    def forward(self, x):
        x = self.conv2(self.blocks(self.conv1(x)))
        return self.classifier(x.mean((2, 3)))


def shuffle(x, groups):
    """Deals the channels of each group out over all groups."""
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


class ShuffleUnit(nn.Module):
    """The bottleneck of ShuffleNet (Zhang et al., 2018, figure 2)."""

    GROUPS = 3

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        width = outputs // 4
        # The very first unit is fed 24 channels by the stem: not grouped there.
        self.groups = 1 if inputs == 24 else self.GROUPS
        self.conv1 = conv(inputs, width, 1, groups=self.groups)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3, stride, groups=width)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv(width, outputs, 1, groups=self.GROUPS)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.stride = stride

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = shuffle(y, self.groups)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        if self.stride == 1:
            return F.relu(y.add_(x), inplace=True)
        return F.relu(torch.cat([y, F.avg_pool2d(x, 3, 2, 1)], 1), inplace=True)


class ShuffleV1(nn.Module):
    """ShuffleNet with three groups and a 1x1 stem."""

    def __init__(self, classes):
        super().__init__()
        self.conv1 = conv(3, 24, 1)
        self.bn1 = nn.BatchNorm2d(24)
        inputs = 24
        for index, (outputs, count) in enumerate(((240, 4), (480, 8), (960, 4)), 1):
            units = [ShuffleUnit(inputs, outputs - inputs, 2)]
            units += [ShuffleUnit(outputs, outputs, 1) for _ in range(count - 1)]
            setattr(self, f"layer{index}", nn.Sequential(*units))
            inputs = outputs
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


class BasicShuffle(nn.Module):
    """A unit of ShuffleNet V2: half the channels pass untouched (Ma et al., 2018, figure 3c)."""

    def __init__(self, channels):
        super().__init__()
        half = channels // 2
        self.conv1 = conv(half, half, 1)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = conv(half, half, 3, groups=half)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = conv(half, half, 1)
        self.bn3 = nn.BatchNorm2d(half)

    def forward(self, x):
        kept, y = x.chunk(2, 1)
        y = F.relu(self.bn1(self.conv1(y)), inplace=True)
        y = self.bn2(self.conv2(y))
        y = F.relu(self.bn3(self.conv3(y)), inplace=True)
        return shuffle(torch.cat([kept, y], 1), 2)


class DownShuffle(nn.Module):
    """The unit that halves the image and widens it, both branches filtered (figure 3d)."""

    def __init__(self, inputs, outputs):
        super().__init__()
        half = outputs // 2
        self.conv1 = conv(inputs, inputs, 3, 2, groups=inputs)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv2 = conv(inputs, half, 1)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = conv(inputs, half, 1)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv4 = conv(half, half, 3, 2, groups=half)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = conv(half, half, 1)
        self.bn5 = nn.BatchNorm2d(half)

    def forward(self, x):
        left = F.relu(self.bn2(self.conv2(self.bn1(self.conv1(x)))), inplace=True)
        right = F.relu(self.bn3(self.conv3(x)), inplace=True)
        right = F.relu(self.bn5(self.conv5(self.bn4(self.conv4(right)))), inplace=True)
        return shuffle(torch.cat([left, right], 1), 2)


class ShuffleV2(nn.Module):
    """ShuffleNet V2 at width 1 with a 1x1 stem."""

    def __init__(self, classes):
        super().__init__()
        self.conv1 = conv(3, 24, 1)
        self.bn1 = nn.BatchNorm2d(24)
        inputs = 24
        for index, (outputs, count) in enumerate(((116, 3), (232, 7), (464, 3)), 1):
            units = [DownShuffle(inputs, outputs)]
            units += [BasicShuffle(outputs) for _ in range(count)]
            setattr(self, f"layer{index}", nn.Sequential(*units))
            inputs = outputs
        self.conv2 = conv(inputs, 1024, 1)
        self.bn2 = nn.BatchNorm2d(1024)
        self.linear = nn.Linear(1024, classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.layer3(self.layer2(self.layer1(x)))
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        return self.linear(x.mean((2, 3)))


class MobileNetV1(nn.Module):
    """MobileNet for ImageNet (Howard et al., 2017, table 1), with the names of the literature's checkpoints."""

    # Channels and stride of the depthwise-separable blocks.
    SETTINGS = (
        (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1), (512, 1), (512, 1),
        (512, 1), (512, 1), (1024, 2), (1024, 1),
    )  # fmt: skip

    def __init__(self, classes):
        super().__init__()
        inputs = 32
        blocks = [nn.Sequential(conv(3, inputs, 3, 2), nn.BatchNorm2d(inputs), nn.ReLU(inplace=True))]
        for width, stride in self.SETTINGS:
            blocks.append(
                nn.Sequential(
                    conv(inputs, inputs, 3, stride, groups=inputs),
                    nn.BatchNorm2d(inputs),
                    nn.ReLU(inplace=True),
                    conv(inputs, width, 1),
                    nn.BatchNorm2d(width),
                    nn.ReLU(inplace=True),
                )
            )
            inputs = width
        self.model = nn.Sequential(*blocks)
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x):
        # A global average, which at 224x224 is the literature's average over 7x7.
        return self.fc(self.model(x).mean((2, 3)))
