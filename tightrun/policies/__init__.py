"""What is decided, in plain numbers. No torch, no transformers."""
