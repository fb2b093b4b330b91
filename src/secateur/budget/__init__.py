"""From scores and a budget to a plan."""

from secateur.budget.allocate import RANKINGS as RANKINGS
from secateur.budget.allocate import plan as plan
from secateur.budget.budget import Budget as Budget
from secateur.budget.configuration import Configuration as Configuration
from secateur.budget.configuration import is_widths as is_widths
from secateur.budget.configuration import read_widths as read_widths
from secateur.budget.configuration import write_widths as write_widths
from secateur.budget.goal import Goal as Goal
from secateur.budget.presets import PRESETS as PRESETS
from secateur.budget.presets import preset_widths as preset_widths
from secateur.budget.threshold import nothing_to_cut as nothing_to_cut
from secateur.budget.threshold import threshold as threshold
