"""Records on disk: captioned picture folders, labelling, bounded decoding, latents cache."""
