"""Walk through a room and let the model look with you: `seg_walk` shows a model what its window shows.

The model is the starter model, another file, or one behind a server. `import virtual_room.walk` loads no engine.
Only `window` knows the engine, only `live` the server's protocol, only `local` a model file.
"""

from virtual_room.walk.command import seg_walk

__all__ = ["seg_walk"]
