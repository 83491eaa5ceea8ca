"""What tests of several rooms share; pytest's ``pythonpath`` makes it importable by name."""
