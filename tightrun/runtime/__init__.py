"""What moves and computes: the model, its memory, the loop."""
