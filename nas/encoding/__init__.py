"""Encodings of architectures for the learners.

Of any space: one-hot, ordinal and tokens, with inverses (``nas.encoding.flat``), and a vector for
surrogate models (``nas.encoding.features``). Of spaces made of cells: adjacency matrices with
operations, graph tensors and paths (``nas.encoding.graphs``).
"""

from nas.encoding.features import feature_names as feature_names
from nas.encoding.features import features as features
from nas.encoding.flat import from_one_hot as from_one_hot
from nas.encoding.flat import from_ordinal as from_ordinal
from nas.encoding.flat import from_tokens as from_tokens
from nas.encoding.flat import one_hot as one_hot
from nas.encoding.flat import ordinal as ordinal
from nas.encoding.flat import tokens as tokens
from nas.encoding.flat import vocabulary_size as vocabulary_size
from nas.encoding.graphs import Adjacency as Adjacency
from nas.encoding.graphs import CellGraph as CellGraph
from nas.encoding.graphs import GraphTensors as GraphTensors
from nas.encoding.graphs import HasGraphs as HasGraphs
from nas.encoding.graphs import HasPaths as HasPaths
from nas.encoding.graphs import adjacency as adjacency
from nas.encoding.graphs import graph_of_edges as graph_of_edges
from nas.encoding.graphs import graph_tensors as graph_tensors
from nas.encoding.graphs import path_count as path_count
from nas.encoding.graphs import path_encoding as path_encoding
from nas.encoding.graphs import paths as paths
