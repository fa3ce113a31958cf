"""Scenes: coloured objects on a grid of 16-pixel cells, and their pictures.

One cell is one merged vision token (patch 8, merge 2), so a 128-px picture is 64 tokens and a 192-px picture 144. An
object never leaves its cell; its exact pixel box is known. The background carries a fixed gradient (so that absolute
position is visible), a random tint and noise. Knows nothing of questions.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from models.proxy.glyphs import FILLS, MARKER_PX, MARKERS, SHAPES, SIZES_PX, marker_alpha, object_alpha

CELL_PX = 16
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "white", "black")
_RGB = np.array(
    [(215, 30, 35), (255, 140, 0), (250, 230, 40), (30, 150, 50), (40, 70, 220), (150, 40, 180), (247, 247, 247), (12, 12, 12)],
    dtype=np.float32,
)
GRAY_LEVELS = (40, 85, 130, 175, 220)
"""Luminance of a marker's plate."""
_MARKER_INK = np.array((255, 0, 90), dtype=np.float32)
_NOISE_SIGMA = 7.0

ATTRIBUTES = {"color": COLORS, "shape": SHAPES, "fill": FILLS}
Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 as fractions of the picture's width and height."""


@dataclass(frozen=True, slots=True)
class Item:
    """One object: attributes by name, its cell, and its place and size inside the cell in pixels."""

    color: str
    shape: str
    fill: str
    row: int
    col: int
    dx: int
    dy: int
    size_px: int

    def get(self, attribute: str) -> str:
        """The word for 'color', 'shape' or 'fill'."""
        return getattr(self, attribute)

    @property
    def pixels(self) -> tuple[int, int, int, int]:
        """x0, y0, x1, y1 in pixels, x1 and y1 exclusive; every drawn pixel lies inside."""
        x, y = self.col * CELL_PX + self.dx, self.row * CELL_PX + self.dy
        return x, y, x + self.size_px, y + self.size_px


@dataclass(frozen=True, slots=True)
class Marker:
    """A lettered plate of uniform gray (index into GRAY_LEVELS) in one cell."""

    letter: str
    level: int
    row: int
    col: int

    @property
    def pixels(self) -> tuple[int, int, int, int]:
        """As Item.pixels."""
        x, y = self.col * CELL_PX + 1, self.row * CELL_PX + 1
        return x, y, x + MARKER_PX, y + MARKER_PX


@dataclass(frozen=True)
class Scene:
    """A picture before it is drawn. `tint` is added to the background's RGB; `noise_seed` fixes the noise.

    `contrast` (0..1) is how opaque things are on the background, `noise` multiplies the background's noise: together the
    knob of difficulty. Both are the same for a pair of twins.
    """

    side_px: int
    items: tuple[Item, ...]
    markers: tuple[Marker, ...] = ()
    tint: tuple[float, float, float] = (0.0, 0.0, 0.0)
    noise_seed: int = 0
    contrast: float = 1.0
    noise: float = 1.0
    content_is_layout: bool = field(default=True)
    """True: two scenes with the same occupied cells count as the same content, whatever the attributes (so a minimal
    pair is one content). False (puzzles, whose layout is fixed): the attributes count too."""

    def content(self) -> bytes:
        """What makes this scene this scene, for the split into roles."""
        cells = sorted((i.row, i.col) for i in self.items) + [(m.row, m.col, m.letter) for m in self.markers]
        text = f"{self.side_px}|{cells}"
        if not self.content_is_layout:
            text += repr(sorted((i.row, i.col, i.color, i.shape, i.fill) for i in self.items))
        return text.encode()

    def with_item(self, old: Item, new: Item) -> Scene:
        """The same scene with one object replaced; ValueError if `old` is not in it."""
        if old not in self.items:
            raise ValueError(f"{old} is not in the scene")
        return replace(self, items=tuple(new if i is old or i == old else i for i in self.items))

    def box(self, *things: Item | Marker) -> Box:
        """Evidence box: the smallest that holds all the things, with nothing around it; ValueError without things."""
        if not things:
            raise ValueError("a box needs at least one thing")
        p = np.array([t.pixels for t in things])
        lo, hi = p[:, :2].min(0) / self.side_px, p[:, 2:].max(0) / self.side_px
        return float(lo[0]), float(lo[1]), float(hi[0]), float(hi[1])


@dataclass(frozen=True)
class SceneStyle:
    """What scenes are drawn from: picture side, number of objects, and how many values each attribute may take."""

    side_px: int = 128
    items: tuple[int, int] = (12, 18)
    colors: tuple[int, int] = (4, 6)
    shapes: tuple[int, int] = (3, 5)
    fills: tuple[int, int] = (2, 4)
    marker_probability: float = 0.0
    contrast: tuple[float, float] = (1.0, 1.0)
    """Bounds of a scene's contrast, drawn evenly."""
    noise: tuple[float, float] = (1.0, 1.0)
    """Bounds of a scene's noise, drawn evenly."""

    @property
    def cells(self) -> int:
        """Cells per side."""
        return self.side_px // CELL_PX


EASY = SceneStyle(items=(3, 8), colors=(4, 8), shapes=(3, 6), fills=(2, 4), marker_probability=0.3)
USUAL = SceneStyle(items=(8, 16), marker_probability=0.3)
DENSE = SceneStyle(side_px=192, items=(26, 36), colors=(4, 6), shapes=(3, 5), fills=(3, 4))


def place(rng: np.random.Generator, color: str, shape: str, fill: str, row: int, col: int) -> Item:
    """An object of random size at a random place inside the given cell."""
    size = int(SIZES_PX[rng.integers(len(SIZES_PX))])
    slack = CELL_PX - size + 1
    return Item(color, shape, fill, row, col, int(rng.integers(slack)), int(rng.integers(slack)), size)


def random_tint(rng: np.random.Generator) -> tuple[float, float, float]:
    """A background tint, up to 28 levels per channel."""
    return tuple(float(v) for v in rng.uniform(-28, 28, 3))  # type: ignore[return-value]


def _palette(rng: np.random.Generator, words: tuple[str, ...], bounds: tuple[int, int]) -> list[str]:
    count = int(rng.integers(bounds[0], bounds[1] + 1))
    return [words[i] for i in rng.choice(len(words), count, replace=False)]


def sample_scene(rng: np.random.Generator, style: SceneStyle) -> Scene:
    """One random scene of a style. Objects take attributes from a small palette, so one attribute rarely names one."""
    palettes = (_palette(rng, COLORS, style.colors), _palette(rng, SHAPES, style.shapes), _palette(rng, FILLS, style.fills))
    count = int(rng.integers(style.items[0], style.items[1] + 1))
    marked = rng.random() < style.marker_probability
    cells = rng.choice(style.cells**2, count + 2 * marked, replace=False)
    items = []
    for cell in cells[:count]:
        words = [p[int(rng.integers(len(p)))] for p in palettes]
        items.append(place(rng, *words, int(cell) // style.cells, int(cell) % style.cells))
    markers: tuple[Marker, ...] = ()
    if marked:
        levels = rng.integers(len(GRAY_LEVELS), size=2)
        if rng.random() < 0.2:
            levels[1] = levels[0]
        markers = tuple(
            Marker(letter, int(level), int(cell) // style.cells, int(cell) % style.cells)
            for letter, level, cell in zip("AB", levels, cells[count:], strict=True)
        )
    tint, noise_seed = random_tint(rng), int(rng.integers(2**31))
    contrast, noise = (low if low == high else float(rng.uniform(low, high)) for low, high in (style.contrast, style.noise))
    return Scene(style.side_px, tuple(items), markers, tint, noise_seed, contrast, noise)


@lru_cache(maxsize=8)
def _gradient(side_px: int) -> np.ndarray:
    """The fixed background, float32 [side, side, 3]: brighter above, warmer on the left."""
    t = np.linspace(-1, 1, side_px, dtype=np.float32)
    base = np.full((side_px, side_px, 3), 128, dtype=np.float32)
    base -= 18 * t[:, None, None]
    base[..., 0] -= 18 * t[None, :]
    base[..., 2] += 18 * t[None, :]
    return base


@lru_cache(maxsize=1)
def _noise() -> np.ndarray:
    """A bank of noise, float32 [512, 512, 3], from which a picture takes a window: drawing noise anew costs more."""
    return (np.random.default_rng(20260101).standard_normal((512, 512, 3)) * _NOISE_SIGMA).astype(np.float32)


def background(scene: Scene) -> np.ndarray:
    """The scene without its things, float32 [side, side, 3]."""
    span = 512 - scene.side_px + 1
    y, x = scene.noise_seed % span, (scene.noise_seed // span) % span
    n = scene.side_px
    return _gradient(n) + np.array(scene.tint, dtype=np.float32) + scene.noise * _noise()[y : y + n, x : x + n]


def render(scene: Scene) -> np.ndarray:
    """The picture, uint8 [side, side, 3]."""
    canvas = background(scene)
    for item in scene.items:
        x0, y0, x1, y1 = item.pixels
        alpha = object_alpha(item.shape, item.fill, item.size_px)[..., None] * scene.contrast
        canvas[y0:y1, x0:x1] = canvas[y0:y1, x0:x1] * (1 - alpha) + _RGB[COLORS.index(item.color)] * alpha
    for marker in scene.markers:
        x0, y0, x1, y1 = marker.pixels
        ink = marker_alpha(marker.letter)[..., None]
        ground = canvas[y0:y1, x0:x1]
        level = ground.mean() * (1 - scene.contrast) + GRAY_LEVELS[marker.level] * scene.contrast
        plate = level + (ground - ground.mean()) * (0.25 * scene.contrast + 1 - scene.contrast)
        canvas[y0:y1, x0:x1] = plate * (1 - ink) + _MARKER_INK * ink
    return np.clip(canvas, 0, 255).astype(np.uint8)


__all__ = [
    "ATTRIBUTES",
    "CELL_PX",
    "COLORS",
    "DENSE",
    "EASY",
    "FILLS",
    "GRAY_LEVELS",
    "MARKERS",
    "SHAPES",
    "USUAL",
    "Box",
    "Item",
    "Marker",
    "Scene",
    "SceneStyle",
    "background",
    "place",
    "random_tint",
    "render",
    "sample_scene",
]
