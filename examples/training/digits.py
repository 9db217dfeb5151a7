"""Trains `digits`: a wide perceptron that reads an 8x8 handwritten digit.

The task is small and the network deliberately is not: nearly all its time goes into
reading 3.4 MB of weights, so a batch of 32 costs little more than a batch of one.
Data: scikit-learn's bundled digits, a quarter of them held out.
"""

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional as F

import common

SEED = 20
EPOCHS = 80
BATCH = 64


class Digits(nn.Module):
    """[batch,64] pixels 0..16 to [batch,10] probabilities; scaling and softmax inside."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(64, 768), nn.ReLU(), nn.Dropout(0.3),
            nn.Linear(768, 768), nn.ReLU(), nn.Dropout(0.3),
            nn.Linear(768, 256), nn.ReLU(), nn.Dropout(0.2),
            nn.Linear(256, 10),
        )  # fmt: skip

    def logits(self, pixels):
        return self.layers(pixels / 8.0 - 1.0)

    def forward(self, pixels):
        return self.logits(pixels).softmax(dim=1)


def load_data():
    """(train pixels, train labels, test pixels, test labels), split alike for every class."""
    pixels, labels = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        pixels.astype(np.float32), labels, test_size=0.25, random_state=SEED, stratify=labels
    )
    return tuple(map(torch.from_numpy, (train_x, train_y, test_x, test_y)))


def jitter(pixels):
    """Moves, turns and scales each picture a little: 1,347 pictures are few."""
    count = len(pixels)
    angle = torch.empty(count).uniform_(-0.2, 0.2)
    scale = torch.empty(count).uniform_(0.9, 1.1)
    shift = torch.empty(count, 2, 1).uniform_(-0.12, 0.12)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    turn = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
    grid = F.affine_grid(torch.cat([turn, shift], 2), (count, 1, 8, 8), align_corners=False)
    moved = F.grid_sample(pixels.view(-1, 1, 8, 8), grid, align_corners=False)
    return moved.view(-1, 64)


def train(model, pixels, labels):
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    steps = len(pixels) // BATCH
    schedule = common.one_cycle(optimizer, 2e-3, EPOCHS * steps)
    model.train()
    for epoch in range(EPOCHS):
        order = torch.randperm(len(pixels))[: steps * BATCH].view(steps, BATCH)
        for rows in order:
            logits = model.logits(jitter(pixels[rows]))
            loss = F.cross_entropy(logits, labels[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if epoch % 10 == 9:
            print(f"digits: epoch {epoch + 1} of {EPOCHS}, loss {loss.item():.4f}", flush=True)


def main():
    common.set_up(SEED)
    train_x, train_y, test_x, test_y = load_data()
    model = Digits()
    train(model, train_x, train_y)
    path = common.export(model, "digits", test_x[:16], ["pixels"], ["scores"])
    (scores,) = common.run(common.session(path), test_x.numpy())
    right = scores.argmax(axis=1) == test_y.numpy()
    print(f"digits: {right.sum()} of {len(right)} held out right, accuracy {right.mean():.4f}")


if __name__ == "__main__":
    main()
