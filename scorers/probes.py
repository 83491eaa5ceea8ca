"""Fixed samples that show what a library does, for fingerprints.

A version is a poor stand-in for behaviour: most releases of Pillow give the same JPEG files as the
one before, and a name such as "libjpeg-turbo" does not say how it was built. So a fingerprint holds
a digest of what the installed library makes of these samples.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

TEXTS = (
    "The food here isn't very good, but the staff was AMAZING!!! :)",
    "Dr. Smith paid $3.50 for 2,000 well-known e-mails; he didn't complain... did he?",
    "It was kind of terrible, hardly the best day of my life.\nAt least nobody died 😊",
    "“Incomprehensibility,” said the encyclopaedia's naïve author, “is un peu déroutant.”",
    "one",
)


def pictures() -> list[Image]:
    """Six small RGB pictures: a gradient, noise, a gradient with grain as photographs have it, flat
    areas with hard edges, fine lines, one colour. Whole-number arithmetic: the same everywhere."""
    from PIL import Image

    y, x = np.mgrid[0:80, 0:96].astype(np.uint32)
    noise = ((x * 374761393 + y * 668265263) ^ ((x * y) << 7)) * np.uint32(1274126177)
    noise = np.stack([noise >> shift & 255 for shift in (8, 14, 21)], axis=-1)  # (80, 96, 3)
    gradient = np.stack([x * 255 // 95, y * 255 // 79, (x + y) * 255 // 174], axis=-1)
    checks = (x // 24 + y // 20) % 3
    lines = np.where((x + 2 * y) % 5 < 2, 255, 0)
    arrays = [
        gradient,
        noise,
        (gradient * 7 + noise) // 8,
        np.stack([checks * 120, 255 - checks * 100, checks * checks * 50], axis=-1),
        np.stack([lines, lines, 255 - lines], axis=-1),
        np.full_like(gradient, 180),
    ]
    return [Image.fromarray(array.astype(np.uint8)) for array in arrays]


def digest(found: Any) -> str:
    """8 hex digits of the SHA-256 of plain data: what a library made of the samples."""
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:8]
