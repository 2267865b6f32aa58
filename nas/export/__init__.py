"""Networks as plain PyTorch: a folder with source, weights and a check, which needs torch alone.

``export`` is the one entry. It spells the network as constructor calls (``expression``), copies
the classes those need (``definitions``), puts both into one file (``source``) together with what
that file does when it is run (``runner``), verifies it, and writes the folder (``folder``).
"""

from nas.export.folder import export as export

__all__ = ["export"]
