"""Plans, and the only code that touches weights."""

from secateur.surgery.cut import cut as cut
from secateur.surgery.express import follow as follow
from secateur.surgery.files import load as load
from secateur.surgery.files import save as save
from secateur.surgery.mask import Masked as Masked
from secateur.surgery.mask import mask as mask
from secateur.surgery.optimizer import rebuild_optimizer as rebuild_optimizer
from secateur.surgery.plan import GroupPlan as GroupPlan
from secateur.surgery.plan import Plan as Plan
from secateur.surgery.plan import make_plan as make_plan
from secateur.surgery.skip import silenced as silenced
from secateur.surgery.sparse import Hold as Hold
from secateur.surgery.sparse import Masks as Masks
from secateur.surgery.sparse import largest as largest
from secateur.surgery.sparse import layers_of as layers_of
from secateur.surgery.sparse import load_masks as load_masks
from secateur.surgery.sparse import masks_of as masks_of
from secateur.surgery.sparse import n_of_m as n_of_m
from secateur.surgery.sparse import save_masks as save_masks
from secateur.surgery.verify import Verification as Verification
from secateur.surgery.verify import verify as verify
