"""One paper, one file, one line here."""

from secateur.methods.l1 import L1
from secateur.methods.lottery import Lottery, LotteryUnits
from secateur.methods.magnitude import Magnitude
from secateur.methods.protocol import Evidence as Evidence
from secateur.methods.protocol import Law as Law
from secateur.methods.protocol import Method as Method
from secateur.methods.protocol import WeightMethod as WeightMethod
from secateur.methods.protocol import configure as configure
from secateur.methods.protocol import find as find
from secateur.methods.pruning_from_scratch import PruningFromScratch
from secateur.methods.random import Random
from secateur.methods.reconstruction import Reconstruction
from secateur.methods.sfp import SFP
from secateur.methods.slimming import Slimming
from secateur.methods.sss import SSS
from secateur.methods.tas import TAS
from secateur.methods.thinet import ThiNet

_ALL = (
    L1,
    ThiNet,
    Reconstruction,
    Slimming,
    SSS,
    SFP,
    Magnitude,
    Lottery,
    LotteryUnits,
    PruningFromScratch,
    TAS,
    Random,
)
REGISTRY: dict[str, type[Method]] = {cls.name: cls for cls in _ALL}


def methods() -> dict[str, str]:
    """The name of every method with one line about it."""
    return {name: cls.summary for name, cls in REGISTRY.items()}
