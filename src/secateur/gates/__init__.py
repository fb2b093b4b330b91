"""Laws on the units of a group while the network is trained."""

from secateur.gates.attach import Gates as Gates
from secateur.gates.attach import attach as attach
from secateur.gates.attach import attach_to_blocks as attach_to_blocks
from secateur.gates.learned import LearnedGates as LearnedGates
from secateur.gates.norm_scale import norm_scales as norm_scales
from secateur.gates.scalar import PLACES as PLACES
from secateur.gates.scalar import attach_scalars as attach_scalars
