"""The same method on a causal language model: the lighter backend."""
