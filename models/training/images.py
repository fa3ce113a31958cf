"""Pictures as training reads them, under the name by which scripts outside this project know them; `models.backbone` has the code."""

from models.backbone.images import encode_images, grid_of, load_image_processor, patches_of
from models.backbone.pictures import open_image

__all__ = ["encode_images", "grid_of", "load_image_processor", "open_image", "patches_of"]
