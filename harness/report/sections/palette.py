"""PNG files of few colours: charts have few anyway, and noisy pictures need a third of the bytes."""

from __future__ import annotations

import io

from PIL import Image
from PIL.PngImagePlugin import PngInfo

COLOURS = 64


def with_palette(png: bytes) -> bytes:
    """The same picture and its texts; transparency goes. Of a picture with more colours the nearest stay, without noise."""
    with Image.open(io.BytesIO(png)) as image:
        texts = PngInfo()
        for name, text in getattr(image, "text", {}).items():
            texts.add_text(name, text)
        few = image.convert("RGB").quantize(COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        written = io.BytesIO()
        few.save(written, "PNG", optimize=True, pnginfo=texts, dpi=image.info.get("dpi", (72, 72)))
    return written.getvalue()
