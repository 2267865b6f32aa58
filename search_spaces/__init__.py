"""Search spaces: one module, or one folder, a space."""
