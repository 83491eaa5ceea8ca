"""How rewards enter the context (words in the prompt, or learned tokens behind it), and the adapter
that holds what is learned."""
