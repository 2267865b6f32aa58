"""How long networks take: measured end to end and by operation, tables of it, and their check."""
