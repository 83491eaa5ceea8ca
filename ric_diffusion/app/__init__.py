"""``ric app``: the sliders in a browser."""
