"""The networks of the pruning papers, and the look-up of any model by name: a room that knows nothing of pruning."""

from __future__ import annotations

from secateur.models.hugging_face import example_inputs as example_inputs
from secateur.models.registry import ModelEntry as ModelEntry
from secateur.models.registry import build as build
from secateur.models.registry import carries_weights as carries_weights
from secateur.models.registry import default_input_shape as default_input_shape
from secateur.models.registry import names as names
from secateur.models.registry import sources as sources
from secateur.models.weights import load_weights as load_weights
