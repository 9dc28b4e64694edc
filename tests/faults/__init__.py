"""Real jobs in processes of their own, and what the world does to them."""
