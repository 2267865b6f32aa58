"""Training: a recipe, its epochs, and a network's accuracy afterwards.

Nothing here knows of search. On a CPU the same seed gives the same weights to the bit, and
torch's own random state is as it was afterwards.
"""

from nas.training.augmentation import augmented, cutout, mixup, resized
from nas.training.batches import Device, choose_device, fetch, reproducible
from nas.training.distillation import DEFAULT_DISTILLATION, Distillation
from nas.training.loop import batch_loss, train, train_until, training_loss
from nas.training.recipe import DEFAULT_RECIPE, PUBLISHED, Recipe
from nas.training.teachers import load_teacher
from nas.training.whole import Retrained, evaluate, initialised, retrain, weights

__all__ = [
    "DEFAULT_DISTILLATION",
    "DEFAULT_RECIPE",
    "PUBLISHED",
    "Device",
    "Distillation",
    "Recipe",
    "Retrained",
    "augmented",
    "batch_loss",
    "choose_device",
    "cutout",
    "evaluate",
    "fetch",
    "initialised",
    "load_teacher",
    "mixup",
    "reproducible",
    "resized",
    "retrain",
    "train",
    "train_until",
    "training_loss",
    "weights",
]
