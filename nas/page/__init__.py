"""A run, or a sweep, as one HTML file that opens from disk and asks the network for nothing.

The pictures are SVG, drawn by a few hundred lines of plain JavaScript beside this file. A charting
library would do it in fewer: plotly's is 4.5 MB in every file, its parallel coordinates need WebGL,
and what it draws cannot follow the page's colours. So a report is 100 to 300 kB, opens at once on
a phone, and its tables are HTML that is there without any script.

``run_document`` and ``sweep_document`` give everything that a page shows as JSON values.
"""

from nas.page.run import run_document as run_document
from nas.page.run import run_page as run_page
from nas.page.sweep import sweep_document as sweep_document
from nas.page.sweep import sweep_page as sweep_page
