"""Scorers: image or text (and prompt) -> number, higher is better.

    import scorers
    scorer = scorers.load("compressibility:quality=90,resize=none")
    scores = scorer(images, prompts)          # N PIL images -> float32 array (N,)
    scorer.name, scorer.unit, scorer.options, scorer.fingerprint
    scorers.load("positivity")(texts, prompts)    # those of texts take N strings

``scorers.available()`` lists the names: the built-in ones and those that installed packages add.

Adding one from another package takes an entry point in the group ``ric.scorers`` whose name is the
scorer's name, and whose value is a class or function that takes the options as keywords:

    [project.entry-points."ric.scorers"]      # the other package's pyproject.toml
    greyness = "my_package:Greyness"

    class Greyness(scorers.BaseScorer):       # any object with the shape of scorers.Scorer will do
        name = "greyness"                     # the entry point's name
        unit = "grey level"

        def __init__(self, *, gain: float = 1.0) -> None:
            self.options = {"gain": gain}     # scorers.load(name, **options) builds it again
            self.fingerprint = f"greyness gain={gain} {scorers.RGB_FINGERPRINT}"

        def _score(self, images, prompts):    # never empty; prompts is None or as long as images
            return [self.options["gain"] * np.mean(scorers.to_rgb(i)) for i in images]

While it is tried out, such a class needs no package: wherever a person names scorers,
``"my_file.py:Greyness"`` does as well, which is what ``scorers.load_given`` takes. An adapter or a
labelled folder cannot name a file: ``scorers.load`` knows installed scorers alone.

A scorer of texts is a ``scorers.TextScorer``, whose ``_score`` gets strings instead of images. A
built-in name cannot be taken over: the built-in scorer wins, with a warning that names the other
package. Whatever is wrong with what was asked for is a ``scorers.ScorerError``, in one line; if it
is that weights cannot be fetched, or a server does not answer, a ``scorers.WeightsError``, which is
one of those.
"""

from scorers.base import BaseScorer, Scorer, ScorerError, TextScorer, WeightsError
from scorers.files import load_given
from scorers.listing import Listed, listed
from scorers.loading import available, check_consent, is_stand_in, load, named_models, stand_in
from scorers.rgb import RGB_FINGERPRINT, to_rgb

__all__ = [
    "RGB_FINGERPRINT",
    "BaseScorer",
    "Listed",
    "Scorer",
    "ScorerError",
    "TextScorer",
    "WeightsError",
    "available",
    "check_consent",
    "is_stand_in",
    "listed",
    "load",
    "load_given",
    "named_models",
    "stand_in",
    "to_rgb",
]
