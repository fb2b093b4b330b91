"""One number per unit: how much is it worth keeping?"""

from secateur.scores import bn_scale, fpgm, magnitude, random, taylor  # noqa: F401 - importing registers them
from secateur.scores.criterion import CRITERIA as CRITERIA
from secateur.scores.criterion import Criterion as Criterion
from secateur.scores.criterion import Scores as Scores
from secateur.scores.criterion import rows as rows
from secateur.scores.criterion import score as score
