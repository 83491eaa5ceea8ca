"""Pictures that say what made them."""

import json

from PIL import Image

from ric_diffusion.api.picture_settings import TEXT
from ric_diffusion.data.images import png_bytes


def changed(picture, path, **values):
    """The same picture, whose metadata say other things of what made it; at ``path``."""
    with Image.open(picture) as image:
        texts = dict(image.text)
        stored = json.loads(texts[TEXT])
        for place, value in values.items():
            *above, last = place.split("__")
            inner = stored
            for name in above:
                inner = inner[name]
            inner[last] = value
        path.write_bytes(png_bytes(image, texts | {TEXT: json.dumps(stored)}))
    return path
