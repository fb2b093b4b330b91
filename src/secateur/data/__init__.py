"""Data sets by name, and batches of them: a room that knows nothing of pruning."""

from __future__ import annotations

from secateur.data.held_out import held_out as held_out
from secateur.data.loaders import Loader as Loader
from secateur.data.loaders import loader as loader
from secateur.data.registry import DataEntry as DataEntry
from secateur.data.registry import load as load
from secateur.data.registry import names as names
from secateur.data.registry import resizable as resizable
from secateur.data.registry import sources as sources
from secateur.data.splits import Augment as Augment
from secateur.data.splits import DataSplits as DataSplits
from secateur.data.splits import Split as Split
from secateur.data.splits import TensorSplit as TensorSplit
