"""Many searches from one description: a grid of strategies, spaces, data and seeds.

``nas.sweep.grid`` reads the description, ``running`` runs its searches, ``files`` keeps the folder,
``table`` and ``curves`` say what came of them.
"""
