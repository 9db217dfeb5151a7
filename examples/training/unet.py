"""The U-Net that `segment` and `ptycho` are made of."""

import torch
from torch import nn
from torch.nn import functional as F


def block(into, out):
    """Two 3x3 convolutions, each normalised (folded away by the export) and rectified."""
    layers = []
    for channels in (into, out):
        layers.append(nn.Conv2d(channels, out, 3, padding=1, bias=False))
        layers.append(nn.BatchNorm2d(out))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """[batch,into,h,w] to [batch,out,h,w], with widths[k] channels after k halvings."""

    def __init__(self, into, out, widths):
        super().__init__()
        self.down = nn.ModuleList(map(block, (into, *widths[:-1]), widths))
        self.up = nn.ModuleList(
            block(low + high, high) for low, high in zip(widths[:0:-1], widths[-2::-1])
        )
        self.head = nn.Conv2d(widths[0], out, 1)

    def forward(self, x):
        skips = []
        for i, down in enumerate(self.down):
            x = down(x if i == 0 else F.max_pool2d(x, 2))
            skips.append(x)
        for up, skip in zip(self.up, skips[-2::-1]):
            x = up(torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), skip], dim=1))
        return self.head(x)
