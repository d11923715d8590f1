"""Hypermodels: what is searched. Keras models with a search space, independent of any search."""

from hypermodels.configuration import DOCUMENTED, Configuration
from hypermodels.documented_cnn import DocumentedCNN, ModelTooLargeError

__all__ = ["DOCUMENTED", "Configuration", "DocumentedCNN", "ModelTooLargeError"]
