"""A look at searches that other processes run: their journals are read, and nothing is touched."""
