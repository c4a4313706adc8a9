"""The server of an exported model: the original system's protocol, one of its own, a page to try it.

`import model_server` loads no web framework; `model_server.application` does.
"""

from model_server.client import Client
from model_server.settings import Settings

__all__ = ["Client", "Settings"]
