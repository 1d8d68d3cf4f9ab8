"""What we remember: one read model a file, and the transaction that writes it."""
