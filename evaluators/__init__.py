"""Evaluators: one module, or one folder, a way of measuring."""
