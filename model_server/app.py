"""The old name of `model_server.application` and `model_server.command`."""

from model_server.application import make_app  # old name, removed at the merge
from model_server.command import seg_serve  # old name, removed at the merge

__all__ = ["make_app", "seg_serve"]

if __name__ == "__main__":
    seg_serve.main()
