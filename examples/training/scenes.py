"""Draws the pictures `segment` learns from: bright round objects on uneven ground.

A scene is made the way such a picture comes about: ground, marks on the ground,
shadows, objects with relief and rim, then the optics and the camera.  The mask is
every object's full outline, whatever its inside looks like.

All values are grey levels 0..1 in float32 arrays of SIZE x SIZE; lengths are pixels.
"""

import numpy as np
from scipy import ndimage

SIZE = 256
ROWS, COLUMNS = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)


def scene(rng):
    """One (picture, mask): grey 0..1 as float32 and the objects as booleans."""
    ground = _ground(rng)
    _mark_ground(rng, ground)
    picture, mask = ground, np.zeros((SIZE, SIZE), dtype=bool)
    contrast = rng.uniform(0.10, 0.5)
    for place in _places(rng):
        _draw_object(rng, picture, mask, place, contrast)
    return _photograph(rng, picture, mask), mask


def scenes(seed, count):
    """`count` scenes as two arrays; the same seed draws the same scenes."""
    rng = np.random.default_rng(seed)
    pictures = np.empty((count, SIZE, SIZE), dtype=np.float32)
    masks = np.empty((count, SIZE, SIZE), dtype=bool)
    for i in range(count):
        pictures[i], masks[i] = scene(rng)
    return pictures, masks


def _cloud(rng, cells, size=SIZE):
    """Smooth noise, about -1..1, with `cells` bumps along each side."""
    coarse = rng.standard_normal((cells + 3, cells + 3)).astype(np.float32)
    fine = ndimage.zoom(coarse, size / cells, order=3)
    return np.tanh(fine[:size, :size] * 0.8)


def _ground(rng):
    """A level with a slope, soft blobs, vignetting and texture."""
    ground = np.full((SIZE, SIZE), rng.uniform(0.03, 0.5), dtype=np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    across = (np.cos(angle) * ROWS + np.sin(angle) * COLUMNS) / SIZE
    across = (across - across.min()) / (across.max() - across.min())
    ground += rng.uniform(0, 0.45) * across ** rng.uniform(0.7, 3.0)
    ground += rng.uniform(0, 0.12) * _cloud(rng, int(rng.integers(1, 5)))
    if rng.random() < 0.4:
        ground += rng.uniform(0, 0.05) * _cloud(rng, int(rng.integers(8, 33)))
    if rng.random() < 0.4:
        centre = rng.uniform(0.3, 0.7, 2) * SIZE
        far = np.hypot(ROWS - centre[0], COLUMNS - centre[1]) / SIZE
        ground *= 1 - rng.uniform(-0.3, 0.9) * far**2
    return np.clip(ground, 0, 1)


def _mark_ground(rng, ground):
    """Things that are there and are not objects: dust, scratches, arcs, dark corners."""
    for _ in range(rng.integers(0, 40)):
        row, column = rng.integers(0, SIZE, 2)
        ground[row : row + rng.integers(1, 3), column : column + rng.integers(1, 3)] += (
            rng.uniform(-0.2, 0.35)
        )
    for _ in range(rng.integers(0, 5)):
        ground += rng.uniform(-0.1, 0.1) * _scratch(rng)
    if rng.random() < 0.35:
        radius = rng.uniform(60, 400)
        row, column = rng.uniform(-0.5, 1.5, 2) * SIZE
        off = np.hypot(ROWS - row, COLUMNS - column) - radius
        if rng.random() < 0.5:
            ground += rng.uniform(-0.08, 0.08) * np.exp(-((off / rng.uniform(1, 6)) ** 2))
        else:
            ground += rng.uniform(-0.06, 0.06) / (1 + np.exp(-off / rng.uniform(1, 6)))
    if rng.random() < 0.25:
        _cut_corners(rng, ground)


def _scratch(rng):
    """A thin straight line across part of the picture."""
    angle = rng.uniform(0, np.pi)
    row, column = rng.uniform(0, SIZE, 2)
    across = np.cos(angle) * (ROWS - row) + np.sin(angle) * (COLUMNS - column)
    along = np.cos(angle) * (COLUMNS - column) - np.sin(angle) * (ROWS - row)
    return np.exp(-(across**2)) * (np.abs(along) < rng.uniform(10, 150))


def _cut_corners(rng, ground):
    """The black (or white) surround of a plate with rounded corners."""
    half = SIZE / 2 + rng.uniform(-6, 4)
    power = rng.uniform(5, 30)
    centre = SIZE / 2 + rng.uniform(-8, 8, 2)
    inside = np.abs((ROWS - centre[0]) / half) ** power
    inside += np.abs((COLUMNS - centre[1]) / half) ** power
    ground[inside > 1] = 0.02 if rng.random() < 0.8 else 0.95


def _places(rng):
    """(row, column, radius) of each object: scattered, crowded or laid out in a grid."""
    kind = rng.choice(["scattered", "crowded", "grid", "empty"], p=[0.45, 0.2, 0.32, 0.03])
    if kind == "empty":
        return []
    if kind == "grid":
        return _grid_places(rng)
    return _scattered_places(rng, crowded=kind == "crowded")


def _grid_places(rng):
    """Rows of objects, each a little off its cell's centre."""
    rows, columns = rng.integers(2, 7, 2)
    pitch = np.array([SIZE / rows, SIZE / columns])
    largest = np.clip(pitch.min() * rng.uniform(0.3, 0.5), 8, 60)
    places = []
    for i in range(rows):
        for j in range(columns):
            if rng.random() < 0.9:
                centre = (np.array([i, j]) + 0.5 + rng.uniform(-0.12, 0.12, 2)) * pitch
                places.append((*centre, max(8, largest * rng.uniform(0.65, 1.1))))
    return places


def _scattered_places(rng, crowded):
    """Objects anywhere; in a crowd neighbours touch, else they keep apart."""
    low = rng.uniform(8, 30)
    high = rng.uniform(low, 60)
    gap = rng.uniform(0.8, 1.0) if crowded else rng.uniform(1.02, 1.4)
    places = []
    for _ in range(rng.integers(60, 200) if crowded else rng.integers(1, 60)):
        radius = rng.uniform(low, high)
        row, column = rng.uniform(-10, SIZE + 10, 2)
        if all(np.hypot(row - r, column - c) > gap * (radius + s) for r, c, s in places):
            places.append((row, column, radius))
    return places


def _draw_object(rng, picture, mask, place, contrast):
    """Lays one object, and the shadow around it, into picture and mask."""
    row, column, radius = place
    reach = int(radius * 1.6) + 8
    top, left = max(0, int(row) - reach), max(0, int(column) - reach)
    window = np.s_[top : min(SIZE, int(row) + reach), left : min(SIZE, int(column) + reach)]
    if 0 in picture[window].shape:
        return
    depth = _depth(rng, ROWS[window] - row, COLUMNS[window] - column, radius)
    if rng.random() < 0.5:
        shadow = np.exp(np.minimum(depth, 0) / rng.uniform(2, 8))
        picture[window] *= 1 - rng.uniform(0, 0.5) * shadow
    inside = depth > 0
    if not inside.any():
        return
    base = np.median(picture[window][~inside]) if rng.random() < 0.7 else picture[window]
    face = base + contrast * rng.uniform(0.7, 1.3) + _face(rng, depth, radius)
    cover = np.clip(depth + 0.5, 0, 1)
    picture[window] = picture[window] * (1 - cover) + face * cover
    mask[window] |= inside


def _depth(rng, down, right, radius):
    """Pixels inwards from the outline of an oval with an uneven edge; negative outside."""
    turn, stretch = rng.uniform(0, np.pi), rng.uniform(0.75, 1.0)
    u = np.cos(turn) * right + np.sin(turn) * down
    v = (np.cos(turn) * down - np.sin(turn) * right) / stretch
    angle = np.arctan2(v, u)
    edge = np.ones_like(angle)
    for waves in range(2, 8):
        size = rng.uniform(0, 0.10) / waves
        edge += size * np.cos(waves * angle + rng.uniform(0, 2 * np.pi))
    return (radius * edge - np.hypot(u, v)) * np.sqrt(stretch)


def _face(rng, depth, radius):
    """What an object looks like inside, as differences from its level."""
    face = np.zeros_like(depth)
    shape = depth.shape
    angle = rng.uniform(0, 2 * np.pi)
    slope = np.cos(angle) * np.linspace(-1, 1, shape[0])[:, None]
    slope = slope + np.sin(angle) * np.linspace(-1, 1, shape[1])[None, :]
    face += rng.uniform(0, 0.15) * slope
    if rng.random() < 0.5:
        face += rng.uniform(-0.1, 0.2) * np.clip(depth / radius, 0, 1)
    if rng.random() < 0.75:
        face += _relief(rng, shape, radius, angle)
    if rng.random() < 0.6:
        ring = (depth - rng.uniform(0, 0.3) * radius) / rng.uniform(0.8, 2.5)
        face += rng.uniform(-0.25, 0.3) * np.exp(-(ring**2))
    if rng.random() < 0.5:
        rim = np.exp(-((depth / rng.uniform(1, 4)) ** 2))
        face += rng.uniform(-0.25, 0.15) * rim
    face += rng.uniform(0, 0.06) * rng.standard_normal(shape)
    return face


def _relief(rng, shape, radius, angle):
    """An engraving lit from one side: the slope of a height map of thresholded clouds."""
    size = max(shape)
    height = np.zeros((size, size), dtype=np.float32)
    for _ in range(rng.integers(1, 4)):
        cloud = _cloud(rng, int(rng.integers(3, 14)), size)
        height += cloud > rng.uniform(-0.3, 0.5)
    height = ndimage.gaussian_filter(height, rng.uniform(0.5, 1.5))[: shape[0], : shape[1]]
    lit = np.cos(angle) * np.gradient(height, axis=0) + np.sin(angle) * np.gradient(height, axis=1)
    return rng.uniform(0.1, 0.8) * lit + rng.uniform(-0.12, 0.12) * height


def _photograph(rng, picture, mask):
    """Optics and camera: blur, grain, gamma, range, eight bits."""
    picture = ndimage.gaussian_filter(np.clip(picture, 0, 1), rng.uniform(0.2, 1.3))
    grain = rng.standard_normal(picture.shape).astype(np.float32)
    if rng.random() < 0.3:
        grain = 2 * ndimage.gaussian_filter(grain, 0.7)
    picture = picture + rng.uniform(0, 0.05) * grain
    if rng.random() < 0.3:
        low, high = np.percentile(picture, [1, 99])
        picture = (picture - low) / max(high - low, 0.2) * rng.uniform(0.7, 1)
    picture = np.clip(picture, 0, 1) ** rng.uniform(0.75, 1.35)
    return (np.round(picture * 255) / 255).astype(np.float32)
