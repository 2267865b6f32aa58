"""``python -m nas.cli``, which is the command ``nas``."""

from nas.cli import main

main()
