"Old name of `occupancy`, removed at the merge"

from virtual_room.occupancy import CELL, filled, origin  # noqa: F401
