"""What runs: one file is one consumer is one lag."""
