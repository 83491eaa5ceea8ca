"""The adapter: what training produces, self-describing; its LoRA, card, hub, export."""
