"""Network morphism: children of a trained network that compute what it does, and can do more.

``morphisms`` lists the steps by which an architecture of a space can grow, ``inherit`` gives the
weights of a child. Both work on any space, from what its networks do (``nas.morphism.trace``).
"""

from nas.morphism.inheriting import Inherited as Inherited
from nas.morphism.inheriting import inherit as inherit
from nas.morphism.layer import Grows as Grows
from nas.morphism.steps import MORPHISM_KINDS as MORPHISM_KINDS
from nas.morphism.steps import Morphism as Morphism
from nas.morphism.steps import morphisms as morphisms
