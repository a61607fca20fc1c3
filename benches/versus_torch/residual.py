"""The residual networks for 32-pixel images: ResNet, narrow and wide."""

import torch.nn.functional as F
from torch import nn


def conv3x3(inputs, outputs, stride=1):
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)


def conv1x1(inputs, outputs, stride=1):
    return nn.Conv2d(inputs, outputs, 1, stride, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al., 2016, figure 5 left)."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                conv1x1(inputs, outputs, stride), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.bn2(self.conv2(x))
        return F.relu(x.add_(shortcut), inplace=True)


class ResNet(nn.Module):
    """A CIFAR residual network of depth 6n+2 (He et al., 2016, section 4.2)."""

    def __init__(self, depth, stem, widths, classes):
        super().__init__()
        blocks = (depth - 2) // 6
        assert depth == 6 * blocks + 2
        self.conv1 = conv3x3(3, stem)
        self.bn1 = nn.BatchNorm2d(stem)
        for index, (inputs, outputs) in enumerate(zip((stem, *widths), widths), 1):
            stage = [BasicBlock(inputs, outputs, 1 if index == 1 else 2)]
            stage += [BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)]
            setattr(self, f"layer{index}", nn.Sequential(*stage))
        self.fc = nn.Linear(widths[-1], classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean((2, 3)))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, the last four times as wide (He et al., 2016, figure 5 right)."""

    expansion = 4

    def __init__(self, inputs, width, stride):
        super().__init__()
        outputs = self.expansion * width
        self.conv1 = conv1x1(inputs, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv1x1(width, outputs)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = projection(inputs, outputs, stride)

    def forward(self, x):
        shortcut = self.shortcut(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        return F.relu(self.bn3(self.conv3(x)).add_(shortcut), inplace=True)


class WideBasicBlock(nn.Module):
    """The basic block as the four-stage networks name its parts."""

    expansion = 1

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = projection(inputs, outputs, stride)

    def forward(self, x):
        shortcut = self.shortcut(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(x)).add_(shortcut), inplace=True)


def projection(inputs, outputs, stride):
    """What a shortcut passes through; empty, so the identity, where no shape changes."""
    if stride == 1 and inputs == outputs:
        return nn.Sequential()
    return nn.Sequential(conv1x1(inputs, outputs, stride), nn.BatchNorm2d(outputs))


class FourStageResNet(nn.Module):
    """The ImageNet layout with a 3x3 stem and no pooling after it: ResNet18 and ResNet50."""

    def __init__(self, block, blocks, classes):
        super().__init__()
        self.conv1 = conv3x3(3, 64)
        self.bn1 = nn.BatchNorm2d(64)
        inputs = 64
        for index, count in enumerate(blocks, 1):
            stage = []
            for position in range(count):
                stride = 2 if index > 1 and position == 0 else 1
                stage.append(block(inputs, 32 * 2**index, stride))
                inputs = 32 * 2**index * block.expansion
            setattr(self, f"layer{index}", nn.Sequential(*stage))
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.linear(x.mean((2, 3)))


class TwiceUpdatedBatchNorm(nn.BatchNorm2d):
    """Batch norm whose running statistics take the same batch twice in every training pass.

    The networks' published training code evaluates three layers of each wide residual network a
    second time. Two updates with momentum m are one with 1-(1-m)^2, so nothing is computed twice.
    """

    def __init__(self, channels):
        super().__init__(channels, momentum=1 - (1 - 0.1) ** 2)

    def forward(self, x):
        if self.training:
            self.num_batches_tracked.add_(1)
        return super().forward(x)


class PreactivationBlock(nn.Module):
    """The block of a wide residual network: normalise, rectify, convolve, twice."""

    def __init__(self, inputs, outputs, stride, norm):
        super().__init__()
        self.bn1 = norm(inputs)
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        self.convShortcut = conv1x1(inputs, outputs, stride) if inputs != outputs else None

    def forward(self, x):
        active = F.relu(self.bn1(x), inplace=True)
        shortcut = x if self.convShortcut is None else self.convShortcut(active)
        x = F.relu(self.bn2(self.conv1(active)), inplace=True)
        return self.conv2(x).add_(shortcut)


class WideResNet(nn.Module):
    """A wide residual network of depth 6n+4 (Zagoruyko and Komodakis, 2016)."""

    def __init__(self, depth, widen, classes):
        super().__init__()
        blocks = (depth - 4) // 6
        assert depth == 6 * blocks + 4
        widths = (16, 16 * widen, 32 * widen, 64 * widen)
        self.conv1 = conv3x3(3, widths[0])
        for index, (inputs, outputs) in enumerate(zip(widths, widths[1:]), 1):
            norm = nn.BatchNorm2d if index == 1 else TwiceUpdatedBatchNorm
            group = [PreactivationBlock(inputs, outputs, 1 if index == 1 else 2, norm)]
            for _ in range(blocks - 1):
                group.append(PreactivationBlock(outputs, outputs, 1, nn.BatchNorm2d))
            stage = nn.Module()
            stage.layer = nn.Sequential(*group)
            setattr(self, f"block{index}", stage)
        self.bn1 = TwiceUpdatedBatchNorm(widths[3])
        self.fc = nn.Linear(widths[3], classes)

    def forward(self, x):
        x = self.conv1(x)
        for block in (self.block1, self.block2, self.block3):
            x = block.layer(x)
        x = F.relu(self.bn1(x), inplace=True)
        return self.fc(x.mean((2, 3)))
