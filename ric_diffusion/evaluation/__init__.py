"""Methods measured on points x prompts x seeds, and the report on what came of it."""
