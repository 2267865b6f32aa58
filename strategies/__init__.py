"""Search strategies: one module, or one folder, a strategy."""
