"""A report of an evaluation: its typed results, and the text, page and plots made of them."""
