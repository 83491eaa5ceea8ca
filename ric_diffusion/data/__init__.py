"""Records on disk: where they come from, what their samples are, and how they get scores."""
