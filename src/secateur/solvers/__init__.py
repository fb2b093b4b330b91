"""Which channels carry a layer, and which weights make the best of them: numerics that know no network.

Everything works on the products XᵀX, XᵀY and YᵀY of one pass over the samples, or on the samples themselves where they
are fewer than the columns.
"""

from __future__ import annotations

from secateur.solvers.contributions import Contributions as Contributions
from secateur.solvers.gathering import Gathered as Gathered
from secateur.solvers.gathering import LayerAccumulator as LayerAccumulator
from secateur.solvers.gram import GramAccumulator as GramAccumulator
from secateur.solvers.gram import Grams as Grams
from secateur.solvers.greedy import RemovalOrder as RemovalOrder
from secateur.solvers.greedy import remove_greedily as remove_greedily
from secateur.solvers.lasso import LassoSelection as LassoSelection
from secateur.solvers.lasso import select_by_lasso as select_by_lasso
from secateur.solvers.least_squares import FittedScales as FittedScales
from secateur.solvers.least_squares import FittedWeights as FittedWeights
from secateur.solvers.least_squares import fit_scales as fit_scales
from secateur.solvers.least_squares import fit_weights as fit_weights
from secateur.solvers.samples import Samples as Samples
