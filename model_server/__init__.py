"""The server of an exported model: the original system's protocol, one of its own, a page to try it.

`import model_server` loads no web framework; `model_server.app` does.
"""

from model_server.client import Client
from model_server.limits import Settings

__all__ = ["Client", "Settings"]
