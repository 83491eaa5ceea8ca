"""Models behind one protocol: families of diffusion models and causal language models."""
