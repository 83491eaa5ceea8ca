"""The samples that fingerprints probe libraries with stay what they are."""

import numpy as np

from scorers import probes


def test_pictures_are_the_same_each_time_and_differ_from_each_other():
    pictures = probes.pictures()
    assert all(picture.mode == "RGB" and picture.size == (96, 80) for picture in pictures)
    data = [picture.tobytes() for picture in pictures]
    assert data == [picture.tobytes() for picture in probes.pictures()]
    assert len(set(data)) == len(data)


def test_pictures_and_texts_are_pinned():
    # Another value makes every stored fingerprint look different: change the samples never.
    pixels = [np.asarray(picture).tobytes().hex() for picture in probes.pictures()]
    assert probes.digest([pixels, probes.TEXTS]) == "68c4e06d"


def test_a_digest_is_short_and_tells_values_apart():
    found = {probes.digest(value) for value in ([1, 2], [2, 1], [1.5], ["1", 2], {"a": 1})}
    assert len(found) == 5 and all(len(one) == 8 for one in found)
