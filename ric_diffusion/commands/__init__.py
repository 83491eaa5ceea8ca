"""The verbs of the command line, one module each: arguments in, files out."""
