"""Trains `ptycho`: from a diffraction pattern's magnitudes to the object behind it.

A known probe p lights an object o, and the detector sees |F(p o)| without its phase.
The network walks back in STAGES stages.  Each takes the present estimate of o,
carries it to the detector, puts the measured magnitudes in place of the estimated
ones, carries the result back, ROUNDS times over (textbook phase retrieval), and lets
a small U-Net repair what that leaves wrong.  The Fourier transform is two matrix
products, so the exported graph holds plain real operators only.

The probe's support lies in the central LIT x LIT pixels; all work happens there.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import common
from unet import UNet

SEED = 11
SIZE = 64  # Pixels of the detector and of the answer.
LIT = 32  # Pixels around the centre that hold the probe's support.
DIFFUSER = [(0.3, 0.9, 0.0), (-0.8, 0.5, 1.0), (1.1, 0.2, 2.0)]  # Waves: down, right, start.
STAGES = 3
ROUNDS = 5  # Of phase retrieval in each stage.
WIDTHS = (20, 40, 64)
BATCH, STEPS, PEAK_RATE = 48, 800, 3e-3
PHOTONS = (1e5, 1e7)  # Counted per pattern: trained between these,
PHOTONS_HELD_OUT = 1e6  # measured at this.
HELD_OUT_SEED, HELD_OUT = 2_000_003, 1000


def axis():
    """Pixel offsets from the centre of the lit square, as rows and columns."""
    offset = torch.arange(LIT, dtype=torch.float32) - LIT // 2
    return torch.meshgrid(offset, offset, indexing="ij")


def probe():
    """The illumination, as (real, imaginary, support), each LIT x LIT.

    With y, x in pixels from the centre and r their length, the amplitude is a disc of radius
    14 with a piece cut off on one side, brighter towards the other, all edges a little soft:
        s(14 - r) s(x + 0.5 y + 9) (1 + 0.02 x - 0.01 y),   s(t) = 1 / (1 + exp(-3 t))
    The phase is a touch of astigmatism and coma behind a diffuser, which spreads every part of the
    object over the detector and so makes its phase easy to find:
        pi (0.002 x^2 - 0.004 y^2) + 0.0003 x r^2
        + 1.5 (sin(0.9 x + 0.3 y) + sin(0.5 x - 0.8 y + 1) + sin(0.2 x + 1.1 y + 2))
    The support is where the amplitude is above 0.1; there its mean square is scaled to 1.
    """
    y, x = axis()
    square = x**2 + y**2
    disc = torch.sigmoid(3.0 * (14.0 - square.sqrt()))
    cut = torch.sigmoid(3.0 * (x + 0.5 * y + 9.0))
    amplitude = disc * cut * (1.0 + 0.02 * x - 0.01 * y)
    support = amplitude > 0.1
    amplitude = amplitude * support
    amplitude = amplitude / (amplitude[support] ** 2).mean().sqrt()
    phase = torch.pi * (0.002 * x**2 - 0.004 * y**2) + 0.0003 * x * square
    for down, right, start in DIFFUSER:
        phase = phase + 1.5 * torch.sin(right * x + down * y + start)
    return amplitude * phase.cos(), amplitude * phase.sin(), support.float()


def fourier():
    """(real, imaginary) of M, SIZE x LIT: M a M^T is the centred orthonormal transform of a."""
    there = torch.arange(SIZE, dtype=torch.float64) - SIZE // 2
    here = torch.arange(LIT, dtype=torch.float64) - LIT // 2
    angle = -2.0 * torch.pi * torch.outer(there, here) / SIZE
    return (angle.cos() / SIZE**0.5).float(), (angle.sin() / SIZE**0.5).float()


def times(a, b):
    """Product of complex numbers kept as (real, imaginary)."""
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def matmul(a, b):
    """Product of complex matrices kept as (real, imaginary)."""
    return a[0] @ b[0] - a[1] @ b[1], a[0] @ b[1] + a[1] @ b[0]


class Optics(nn.Module):
    """What is known beforehand: the probe and the way to the detector and back."""

    def __init__(self):
        super().__init__()
        probe_re, probe_im, support = probe()
        power = (probe_re**2 + probe_im**2).clamp_min(1e-6)
        matrix_re, matrix_im = fourier()
        constants = {
            "probe_re": probe_re, "probe_im": probe_im, "support": support,
            "undo_re": probe_re / power * support, "undo_im": -probe_im / power * support,
            "there_re": matrix_re, "there_im": matrix_im,
            "back_re": matrix_re.T.contiguous(), "back_im": -matrix_im.T.contiguous(),
            "frame": torch.eye(SIZE)[:, (SIZE - LIT) // 2 : (SIZE + LIT) // 2].contiguous(),
        }  # fmt: skip
        for name, value in constants.items():
            self.register_buffer(name, value)

    def forward(self, obj):
        """The wave on the detector, SIZE x SIZE."""
        wave = times((self.probe_re, self.probe_im), obj)
        wave = matmul((self.there_re, self.there_im), wave)
        return matmul(wave, (self.back_re, -self.back_im))

    def backward(self, wave):
        """The object that sends `wave` to the detector, zero outside the support."""
        wave = matmul((self.back_re, self.back_im), wave)
        wave = matmul(wave, (self.there_re, -self.there_im))
        return times((self.undo_re, self.undo_im), wave)

    def framed(self, lit):
        """A picture of the lit square, with zeros around it to the size of the answer."""
        return self.frame @ lit @ self.frame.T

    @torch.no_grad()  # Stages learn from their own errors, not through these rounds.
    def retrieve(self, obj, magnitude, rounds=ROUNDS):
        """The object after `rounds` times giving its wave the measured magnitudes."""
        for _ in range(rounds):
            re, im = self.forward(obj)
            scale = magnitude / torch.sqrt(re * re + im * im + 1e-8)
            obj = self.backward((re * scale, im * scale))
        return obj


class Ptycho(nn.Module):
    """[batch,1,64,64] magnitudes to amplitude and zero-mean phase, [batch,1,64,64] each.

    Both are zero outside the probe's support, where nothing is known of the object."""

    def __init__(self):
        super().__init__()
        self.optics = Optics()
        self.repairs = nn.ModuleList(UNet(5, 2, WIDTHS) for _ in range(STAGES))

    def stages(self, magnitude):
        """(amplitude, phase) on the lit square after each stage."""
        support = self.optics.support + 0.0 * magnitude[:, :, :LIT, :LIT]  # One per row.
        amplitude, phase = 0.7 * support, 0.0 * support
        estimates = []
        for repair in self.repairs:
            obj = amplitude * phase.cos(), amplitude * phase.sin()
            obj = self.optics.retrieve(obj, magnitude)
            retrieved, turn = modulus(obj), turned(obj, phase)
            change = repair(torch.cat([retrieved, turn, amplitude, phase, support], dim=1))
            amplitude = (retrieved + change[:, :1]) * support
            phase = zero_mean(phase + turn + change[:, 1:], self.optics.support)
            estimates.append((amplitude, phase))
        return estimates

    def forward(self, magnitude):
        amplitude, phase = self.stages(magnitude)[-1]
        return self.optics.framed(amplitude), self.optics.framed(phase)


def modulus(obj):
    return torch.sqrt(obj[0] * obj[0] + obj[1] * obj[1] + 1e-8)


def turned(obj, phase):
    """By how much the object's phase exceeds `phase`; a turn by over a quarter shows as less."""
    along = obj[0] * phase.cos() + obj[1] * phase.sin()
    across = obj[1] * phase.cos() - obj[0] * phase.sin()
    return torch.atan(across / along.clamp_min(0.1))


def zero_mean(phase, support):
    """The phase with its mean over the support taken away: a common phase is never seen."""
    mean = (phase * support).sum(dim=(2, 3), keepdim=True) / support.sum()
    return (phase - mean) * support


def field(count):
    """Random pictures 0..1 with clouds, discs and lines, [count,1,LIT,LIT]."""
    cells = int(torch.randint(3, 9, ()))
    coarse = torch.randn(count, 1, cells, cells)
    picture = F.interpolate(coarse, size=(LIT, LIT), mode="bicubic", align_corners=True)
    picture = torch.rand(count, 1, 1, 1) * picture
    y, x = axis()
    for _ in range(3):
        row, column = torch.empty(2, count, 1, 1, 1).uniform_(-14, 14)
        sharp = torch.empty(count, 1, 1, 1).uniform_(1, 3)
        radius = torch.empty(count, 1, 1, 1).uniform_(-3, 8)  # Below zero: no disc.
        off = radius - torch.sqrt((y - row) ** 2 + (x - column) ** 2)
        picture = picture + _weight(count) * torch.sigmoid(sharp * off)
    for _ in range(2):
        angle = torch.empty(count, 1, 1, 1).uniform_(0, torch.pi)
        across = angle.cos() * y + angle.sin() * x - torch.empty(count, 1, 1, 1).uniform_(-14, 14)
        width = torch.empty(count, 1, 1, 1).uniform_(0.7, 2.0)
        picture = picture + _weight(count) * torch.exp(-((across / width) ** 2))
    low, high = picture.amin((2, 3), keepdim=True), picture.amax((2, 3), keepdim=True)
    return (picture - low) / (high - low).clamp_min(1e-3)


def _weight(count):
    """How strongly a feature shows, either way; every second one hardly."""
    return torch.empty(count, 1, 1, 1).uniform_(-1.5, 1.5) * torch.rand(count, 1, 1, 1)


def objects(count):
    """(amplitude 0.3..1, phase about -1..1 with zero mean over the support)."""
    support = probe()[2]
    depth = torch.empty(count, 1, 1, 1).uniform_(0.2, 0.7)
    swing = torch.empty(count, 1, 1, 1).uniform_(1.0, 2.2)
    shared, own, other = field(count), field(count), field(count)
    alike = torch.rand(count, 1, 1, 1) > 0.5  # Half the objects: both show the same features.
    amplitude = (1.0 - depth * torch.where(alike, shared, other)) * support
    phase = swing * torch.where(alike, shared, own)
    return amplitude, zero_mean(phase, support)


def measure(optics, amplitude, phase, photons):
    """Magnitudes on the detector when `photons` (one number or one per object) are counted."""
    re, im = optics((amplitude * phase.cos(), amplitude * phase.sin()))
    intensity = re * re + im * im
    per_unit = photons / intensity.sum(dim=(2, 3), keepdim=True)
    return torch.sqrt(torch.poisson(intensity * per_unit) / per_unit)


def loss_of(estimates, amplitude, phase):
    """Mean absolute error, later stages counting more."""
    total = 0.0
    for k, (got_amplitude, got_phase) in enumerate(estimates):
        error = (got_amplitude - amplitude).abs() + (got_phase - phase).abs()
        total = total + error.mean() / 2 ** (len(estimates) - 1 - k)
    return total


def train(model):
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-3)
    schedule = common.one_cycle(optimizer, PEAK_RATE, STEPS)
    low, high = np.log(PHOTONS)
    model.train().to(memory_format=torch.channels_last)
    recent = []
    for step in range(1, STEPS + 1):
        amplitude, phase = objects(BATCH)
        photons = torch.empty(BATCH, 1, 1, 1).uniform_(low, high).exp()
        magnitude = measure(model.optics, amplitude, phase, photons)
        loss = loss_of(model.stages(magnitude), amplitude, phase)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        recent = [*recent[-49:], loss.item()]
        if step % 100 == 0:
            print(f"ptycho: step {step} of {STEPS}, loss {np.mean(recent):.4f}", flush=True)
    model.to(memory_format=torch.contiguous_format)


def held_out(optics):
    """(magnitude, amplitude, phase) of objects never trained on, cut to the lit square."""
    torch.manual_seed(HELD_OUT_SEED)
    parts = [objects(50) for _ in range(HELD_OUT // 50)]
    amplitude, phase = (torch.cat(part) for part in zip(*parts))
    return measure(optics, amplitude, phase, PHOTONS_HELD_OUT), amplitude, phase


def answers(session, magnitude):
    """The exported model's (amplitude, phase), cut to the lit square."""
    parts = [common.run(session, part.numpy()) for part in magnitude.split(50)]
    edge = (SIZE - LIT) // 2
    lit = np.s_[:, :, edge : edge + LIT, edge : edge + LIT]
    return [np.concatenate(part)[lit] for part in zip(*parts)]


def retrieval_alone(optics, magnitude, rounds=300):
    """(amplitude, phase) as the textbook finds them without a network, for comparison."""
    flat = 0.7 * optics.support.expand(len(magnitude), 1, LIT, LIT)
    re, im = optics.retrieve((flat, 0.0 * flat), magnitude, rounds)
    mean = torch.atan2(im.sum((2, 3), keepdim=True), re.sum((2, 3), keepdim=True))
    re, im = times((re, im), (mean.cos(), -mean.sin()))
    phase = zero_mean(torch.atan2(im, re), optics.support)
    return modulus((re, im)).numpy(), phase.numpy()


def report(title, got, truth, support):
    """Root mean square errors of amplitude and phase in the support."""
    inside = np.broadcast_to(support.numpy() > 0, truth[0].shape)
    errors = [common.rmse(g, t.numpy(), inside) for g, t in zip(got, truth)]
    print(f"ptycho: held out, {title}: RMSE amplitude {errors[0]:.4f}, phase {errors[1]:.4f}")


def main():
    common.set_up(SEED)
    model = Ptycho()
    train(model)
    optics = model.optics
    magnitude, *truth = held_out(optics)
    path = common.export(model, "ptycho", magnitude[:4], ["magnitude"], ["amplitude", "phase"])
    means = [np.float32(t.sum() / (len(t) * optics.support.sum())) for t in truth]
    report("the model", answers(common.session(path), magnitude), truth, optics.support)
    report("phase retrieval alone", retrieval_alone(optics, magnitude), truth, optics.support)
    report("answering with the mean", means, truth, optics.support)


if __name__ == "__main__":
    main()
