"""Who is tied to whom in a network, found by labels that follow the data."""

from secateur.graph.cost import Cost as Cost
from secateur.graph.groups import Group as Group
from secateur.graph.groups import Member as Member
from secateur.graph.trace import PruningGraph as PruningGraph
from secateur.graph.trace import trace as trace
