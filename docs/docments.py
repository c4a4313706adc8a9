"""For the API pages: comments beside parameters and fields (docments), which mkdocstrings does not read."""
import griffe
from fastcore.docments import docments


def as_section(title: str, comments: dict[str, str]) -> str:
    "A section of a docstring in Google's style, which mkdocstrings shows as a table."
    lines = [f"    {name}: {text}" for name, text in comments.items()]
    return "\n".join(["", "", f"{title}:", *lines])


def read_comments(source: str) -> dict[str, str]:
    "{parameter or field: its comment}, for those that have one."
    comments = docments(source, returns=False)
    return {name: " ".join(text.split()) for name, text in comments.items() if text}


class Docments(griffe.Extension):
    "Adds the comments to the docstrings."

    def add_section(self, item: griffe.Function | griffe.Class, title: str) -> None:
        "Add the comments in the source of `item` to its docstring."
        comments = read_comments(item.source)
        if comments:
            text = item.docstring.value if item.docstring else ""
            item.docstring = griffe.Docstring(text + as_section(title, comments), parent=item)

    def on_function(self, *, func: griffe.Function, **kwargs) -> None:
        "A function's parameters."
        self.add_section(func, "Args")

    def on_class(self, *, cls: griffe.Class, **kwargs) -> None:
        "A dataclass' fields."
        if any("dataclass" in str(decorator.value) for decorator in cls.decorators):
            self.add_section(cls, "Attributes")
