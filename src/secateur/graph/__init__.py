"""Who is tied to whom in a network, found by labels that follow the data."""

from secateur.graph.cost import Cost as Cost
from secateur.graph.explanation import Explanation as Explanation
from secateur.graph.extend import lock as lock
from secateur.graph.extend import register_rule as register_rule
from secateur.graph.extend import unregister_rule as unregister_rule
from secateur.graph.groups import Group as Group
from secateur.graph.groups import Member as Member
from secateur.graph.labels import Labels as Labels
from secateur.graph.labels import lift as lift
from secateur.graph.selector import ChannelSelector as ChannelSelector
from secateur.graph.selector import selectors_of as selectors_of
from secateur.graph.selector import without_whole_selectors as without_whole_selectors
from secateur.graph.streams import select_channels as select_channels
from secateur.graph.trace import PruningGraph as PruningGraph
from secateur.graph.trace import trace as trace
