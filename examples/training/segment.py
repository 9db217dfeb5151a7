"""Trains `segment`: a small U-Net that finds bright round objects in a grey picture.

It learns only from the pictures scenes.py draws.  At the end it is measured on drawn
pictures it has not seen and, once, on a photograph: the coins in examples/pictures.
"""

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

import common
import scenes
from unet import UNet

SEED = 7
TRAIN_SCENES = 1600
HELD_OUT_SEED, HELD_OUT_SCENES = 1_000_003, 200
# (side of the square crops, crops per step, steps): small crops first, whole pictures last.
PHASES = [(128, 16, 1400), (256, 8, 160)]
PEAK_RATE = 4e-3
WIDTHS = (8, 16, 32, 64, 96)
PICTURES = common.MODELS.parent / "pictures"


class Segment(nn.Module):
    """[batch,1,256,256] grey 0..1 to [batch,1,256,256] probability; four halvings deep."""

    def __init__(self):
        super().__init__()
        self.net = UNet(1, 1, WIDTHS)

    def logits(self, image):
        return self.net(image * 4.0 - 1.0)

    def forward(self, image):
        return torch.sigmoid(self.logits(image))


def crops(rng, pictures, masks, side, count):
    """A batch of random squares, turned, mirrored and exposed at random."""
    images = np.empty((count, 1, side, side), dtype=np.float32)
    wanted = np.empty_like(images)
    for i in range(count):
        k = rng.integers(len(pictures))
        row, column = rng.integers(scenes.SIZE - side + 1, size=2)
        window = np.s_[row : row + side, column : column + side]
        turns, mirror = rng.integers(4), 1 - 2 * rng.integers(2)
        image = np.rot90(pictures[k][window], turns)[:, ::mirror]
        gain, gamma = rng.uniform(0.7, 1.2), rng.uniform(0.75, 1.3)
        images[i, 0] = np.clip(gain * image, 0, 1) ** gamma
        wanted[i, 0] = np.rot90(masks[k][window], turns)[:, ::mirror]
    return torch.from_numpy(images), torch.from_numpy(wanted)


def loss_of(logits, wanted):
    """Cross-entropy keeps probabilities honest; the Dice term cares for overlap."""
    got = torch.sigmoid(logits)
    overlap = (got * wanted).sum() + 1.0
    dice = 1.0 - 2.0 * overlap / (got.sum() + wanted.sum() + 2.0)
    return F.binary_cross_entropy_with_logits(logits, wanted) + 0.5 * dice


def train(model, pictures, masks):
    rng = np.random.default_rng(SEED)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-3)
    total = sum(steps for _, _, steps in PHASES)
    schedule = common.one_cycle(optimizer, PEAK_RATE, total)
    model.train().to(memory_format=torch.channels_last)  # Nearly twice as fast on a CPU.
    done, recent = 0, []
    for side, count, steps in PHASES:
        for _ in range(steps):
            images, wanted = crops(rng, pictures, masks, side, count)
            images = images.contiguous(memory_format=torch.channels_last)
            loss = loss_of(model.logits(images), wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            done, recent = done + 1, [*recent[-49:], loss.item()]
            if done % 100 == 0:
                mean = np.mean(recent)
                print(f"segment: step {done} of {total}, loss {mean:.4f}", flush=True)
    model.to(memory_format=torch.contiguous_format)


def masks_of(session, pictures):
    """The model's masks for [count,256,256] pictures, eight at a time."""
    parts = [
        common.run(session, pictures[i : i + 8, None])[0][:, 0] > 0.5
        for i in range(0, len(pictures), 8)
    ]
    return np.concatenate(parts)


def measure_scenes(session):
    """Mean and fifth percentile of the intersection over union on unseen drawn scenes."""
    pictures, wanted = scenes.scenes(HELD_OUT_SEED, HELD_OUT_SCENES)
    got = masks_of(session, pictures)
    each = [common.iou(g, w) for g, w in zip(got, wanted)]
    print(f"segment: held out, all pixels pooled: IoU {common.iou(got, wanted):.4f}")
    print(f"segment: held out, per picture: IoU {np.mean(each):.4f}, median {np.median(each):.4f}")
    print(f"segment: held out, worst twentieth: IoU below {np.percentile(each, 5):.4f}")


def measure_coins(session):
    """Intersection over union on the photograph, at its own size."""
    picture = Image.open(PICTURES / "coins.png").convert("L")
    reference = np.array(Image.open(PICTURES / "coins-reference.png")) > 127
    square = picture.resize((scenes.SIZE, scenes.SIZE), Image.Resampling.BILINEAR)
    image = np.asarray(square, dtype=np.float32)[None, None] / 255
    (probability,) = common.run(session, image)
    full = Image.fromarray(probability[0, 0]).resize(picture.size, Image.Resampling.BILINEAR)
    print(f"segment: coins, IoU {common.iou(np.asarray(full) > 0.5, reference):.4f}")


def main():
    common.set_up(SEED)
    pictures, masks = scenes.scenes(SEED, TRAIN_SCENES)
    model = Segment()
    train(model, pictures, masks)
    example = torch.from_numpy(pictures[:4, None].copy())
    session = common.session(common.export(model, "segment", example, ["image"], ["mask"]))
    measure_scenes(session)
    measure_coins(session)


if __name__ == "__main__":
    main()
