"""Pictures that compress well at any size: scenes and pages, drawn from a seeded generator."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw

Size = tuple[int, int]
"""Width, height in pixels."""


def scene(rng: np.random.Generator, size: Size) -> Image.Image:
    """A soft background with a few discs."""
    coarse = rng.integers(40, 220, (4, 5, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    draw, (width, height) = ImageDraw.Draw(image), size
    for _ in range(6):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        radius = rng.uniform(0.03, 0.12) * min(size)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=tuple(map(int, rng.integers(0, 256, 3))))
    return image


def page(rng: np.random.Generator, size: Size) -> Image.Image:
    """Lines of dark bars on white, as a scanned page looks from afar."""
    width, height = size
    image = Image.new("RGB", size, "white")
    draw, line = ImageDraw.Draw(image), max(8, height // 40)
    for top in range(line, height - line, line * 3 // 2):
        left = width // 10
        while left < width * 0.85:
            word = int(rng.uniform(0.02, 0.12) * width)
            draw.rectangle((left, top, min(left + word, width - 1), top + line // 2), fill=(40, 40, 48))
            left += word + width // 40
    return image


def encoded(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def jpeg(image: Image.Image, **options) -> bytes:
    return encoded(image, "JPEG", **{"quality": 60, **options})


def png(image: Image.Image, **options) -> bytes:
    return encoded(image, "PNG", **options)
