"""At the start of each job: what open_clip imports for models that no test builds, 2 of 4 seconds of a job.

Transformers is there for tests alone, anyhow. Timm, and torchvision where it finds objects in images, load
torch's compiler.
"""

import sys
from types import ModuleType

sys.modules["transformers"] = sys.modules["timm"] = None
objects = sys.modules["torchvision.ops.roi_align"] = ModuleType("torchvision.ops.roi_align")
objects.roi_align = objects.RoIAlign = None
