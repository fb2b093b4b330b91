"""Timing, quality, size and hardware: a room of its own that knows nothing of pruning."""

from __future__ import annotations

from secateur.measure.bench import BACKENDS as BACKENDS
from secateur.measure.bench import BenchRow as BenchRow
from secateur.measure.bench import bench as bench
from secateur.measure.hardware import hardware as hardware
from secateur.measure.hardware import versions as versions
from secateur.measure.latency import Latency as Latency
from secateur.measure.latency import Speedup as Speedup
from secateur.measure.latency import compare as compare
from secateur.measure.latency import speedup as speedup
from secateur.measure.modes import evaluation_mode as evaluation_mode
from secateur.measure.quality import accuracy as accuracy
from secateur.measure.quality import evaluate as evaluate
from secateur.measure.size import count_macs as count_macs
from secateur.measure.size import count_parameters as count_parameters
from secateur.measure.size import model_bytes as model_bytes
