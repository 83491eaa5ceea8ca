"""Sweeps, scores and pictures of them, through the backend protocol."""
