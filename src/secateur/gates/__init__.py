"""Laws on the units of a group while the network is trained."""

from secateur.gates.attach import Gates as Gates
from secateur.gates.attach import attach as attach
from secateur.gates.attach import attach_to_blocks as attach_to_blocks
from secateur.gates.norm_scale import norm_scales as norm_scales
