"""Networks to take away: plain PyTorch, which needs torch alone, and graphs for other runtimes.

``export`` writes a folder with source, weights and a check. It spells the network as constructor
calls (``expression``), copies the classes those need (``definitions``), puts both into one file
(``source``) together with what that file does when it is run (``runner``), verifies it, and
writes the folder (``folder``). ``export_graph`` writes one ONNX or torch.export file (``graph``),
which ``quantize`` turns into 8-bit integers.
"""

from nas.export.folder import export as export
from nas.export.graph import export_graph as export_graph

__all__ = ["export", "export_graph"]
