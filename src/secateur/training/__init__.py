"""The training loop and the recoveries; it calls hooks and knows no paper."""

from __future__ import annotations

from secateur.training.batchnorm import recalibrate as recalibrate
from secateur.training.history import EpochRecord as EpochRecord
from secateur.training.history import History as History
from secateur.training.hooks import Hook as Hook
from secateur.training.loop import fit as fit
from secateur.training.recover import RECOVERIES as RECOVERIES
from secateur.training.recover import RecoveryPlan as RecoveryPlan
from secateur.training.recover import recovery as recovery
from secateur.training.reinitialise import reinitialise as reinitialise
from secateur.training.schedule import TrainConfig as TrainConfig
