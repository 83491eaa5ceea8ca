"""What rewards in context is measured against: small, real, and on the same model and rewards."""
