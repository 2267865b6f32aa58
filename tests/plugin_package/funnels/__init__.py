"""A third party's package: it imports nas, and nas knows nothing of it."""
