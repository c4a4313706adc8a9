"""For the API pages: comments beside parameters and fields (docments), which mkdocstrings does not read."""
import ast
from io import StringIO
from textwrap import dedent
from tokenize import COMMENT, generate_tokens

import griffe


def named_lines(definition: ast.stmt) -> dict[str, int]:
    "{name: line} of the parameters of a function, or of the fields of a class."
    if isinstance(definition, ast.ClassDef):
        fields = [item for item in definition.body if isinstance(item, ast.AnnAssign)]
        return {ast.unparse(field.target): field.lineno for field in fields}
    parameters = definition.args.posonlyargs + definition.args.args + definition.args.kwonlyargs
    return {parameter.arg: parameter.lineno for parameter in parameters}


def read_comments(source: str) -> dict[str, str]:
    "{parameter or field: the comment on its line}, for those that have a line and a comment of their own."
    source = dedent(source)
    tokens = generate_tokens(StringIO(source).readline)
    comments = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == COMMENT}
    definition = ast.parse(source).body[0]
    lines = named_lines(definition)
    return {name: comments[line] for name, line in lines.items() if line in comments and line > definition.lineno}


class Docments(griffe.Extension):
    "Adds the comments to the docstrings, as a section in Google's style, which mkdocstrings shows as a table."

    def add_section(self, item: griffe.Function | griffe.Class, title: str) -> None:
        "Add the comments in the source of `item` to its docstring."
        if not item.docstring or not item.source:  # a dataclass' __init__ has no source
            return
        comments = read_comments(item.source)
        if comments:
            lines = [f"    {name}: {text}" for name, text in comments.items()]
            item.docstring.value += "\n".join(["\n", f"{title}:", *lines])

    def on_function(self, *, func: griffe.Function, **kwargs) -> None:
        "A function's parameters."
        self.add_section(func, "Args")

    def on_class(self, *, cls: griffe.Class, **kwargs) -> None:
        "The fields of a dataclass or named tuple."
        self.add_section(cls, "Attributes")
