"""Plan the images of a folder, in a process of its own: ``python -m tests.hostile.plan_folder IMAGES PLAN``."""

from __future__ import annotations

import sys

from fruits.dataset import Listing, make_plan
from fruits.storage import Folder
from tests.hostile.measure import say

if __name__ == "__main__":
    images, plan = sys.argv[1:]
    say([("plan", lambda: make_plan(Listing(images), 1024, Folder(plan)).images)])
