"""Training, written once against the backend protocol: the SFT loop, checkpoints, online rounds."""
