"""The families of diffusion models, a file each."""
