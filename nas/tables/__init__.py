"""Tables of trained architectures: read them, make them, say what is in them.

``load`` reads one, ``save`` writes one (``nas.tables.files`` describes the file);
``nas.tables.making`` trains every architecture of a small space, ``nas.tables.statistics`` sums a
table up, ``nas.tables.natsbench`` converts the official benchmark's object.
"""

from nas.tables.files import find as find
from nas.tables.files import load as load
from nas.tables.files import save as save
from nas.tables.files import shipped as shipped
from nas.tables.table import Quantity as Quantity
from nas.tables.table import Table as Table
