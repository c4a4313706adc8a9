"""Walk through a room and let the model look with you: `seg_walk` sends what its window shows to a model server.

`import virtual_room.walk` loads no engine. Only `window` knows the engine, only `live` the server's protocol.
"""

from virtual_room.walk.command import seg_walk

__all__ = ["seg_walk"]
