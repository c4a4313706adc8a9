"""The messages: the original system's, our own under /v1, and the Open Inference Protocol's under /v2.

Shapes and their meaning only; must not know how an answer is made.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, model_validator

Fit = Literal["stretch", "letterbox", "sliding_window", "square", "pad", "tile"]  # the last three: older names
Format = Literal["png", "raw", "json"]
MEDIA: dict[str, str] = {"png": "image/png", "json": "application/json", "raw": "application/octet-stream"}


def _whole(v: Any) -> Any:
    "Numbers only: 255 and 255.0, but neither \"255\" nor true."
    if isinstance(v, (bool, str, bytes)):
        raise ValueError("a whole number is needed")
    return v


Whole = BeforeValidator(_whole)


def describe_fault(place: tuple[int | str, ...], message: str) -> str:
    "What pydantic found wrong at this place of a message, without what was sent."
    where = ".".join(str(part) for part in place) or "the body"
    what = message.removeprefix("Value error, ")
    return f"{where}: {what}"


class Color(BaseModel):
    r: Annotated[int, Whole, Field(ge=0, le=255)]
    g: Annotated[int, Whole, Field(ge=0, le=255)]
    b: Annotated[int, Whole, Field(ge=0, le=255)]
    a: Annotated[int, Whole, Field(ge=0, le=255)] = 255


Label = Annotated[int, Whole, Field(ge=-1, le=254)]


class SetLabelColors(BaseModel):
    mime: str = ""
    labels: Annotated[list[Label], Field(max_length=1000, description="mask value - 1")]
    colors: Annotated[list[Color], Field(max_length=1000, description="one a label; a = 0 hides it")]

    @model_validator(mode="after")
    def _one_color_a_label(self) -> SetLabelColors:
        if len(self.labels) != len(self.colors):
            raise ValueError(f"{len(self.labels)} labels but {len(self.colors)} colors; send one color for each label")
        return self


class ColorsSet(BaseModel):
    labels: int = Field(description="how many labels have a color of the client's own now")


class PredictImageText(BaseModel):
    mime: str = ""
    image64: str = Field(description="PNG, JPEG or WebP in strict base64")


class LabelPosition(BaseModel):
    label: int = Field(description="mask value - 1")
    labelPositionX: float
    labelPositionY: float


class ImageText(BaseModel):
    mime: str = "image/png"
    labels: list[LabelPosition]
    image64: str


class LabelRegion(BaseModel):
    value: int = Field(description="the mask's number")
    name: str
    share: float = Field(description="of all pixels, 0 to 1")
    x: float = Field(description="mean column of its pixels")
    y: float = Field(description="mean row of its pixels")
    confidence: float = Field(description="mean, 0 to 1")


class Labelled(BaseModel):
    width: int
    height: int
    labels: list[LabelRegion] = Field(description="largest share first")
    ms: dict[str, float] = Field(description="queue, decode, predict, answer")
    model: str = Field(description="sha256 of the model file")
    mask64: str | None = Field(None, description="base64 of a gray PNG, gray level = mask value")


class Frame(Labelled):
    frame: int = Field(description="number of the frame among those sent, from 0")
    skipped: int = Field(description="frames replaced by a newer one so far")


class FrameRefused(BaseModel):
    frame: int
    skipped: int
    status: int
    error: str


class TableRow(BaseModel):
    value: int
    name: str
    group: str
    color: tuple[int, int, int]


class ModelCard(BaseModel):
    name: str
    sha256: str
    arch: str | None
    size: tuple[int, int] = Field(description="height, width the model was trained at")
    provider: str
    background: int | None
    labels: list[TableRow]
    limits: dict[str, float]


class ServedModel(BaseModel):
    name: str
    file: str
    status: Literal["ready", "warming up", "failed"]


class ModelList(BaseModel):
    default: str = Field(description="the model of requests that name none")
    models: list[ServedModel]


class Health(BaseModel):
    status: Literal["alive", "ready", "warming up", "failed"]


class Greeting(BaseModel):
    name: str
    model: str
    demo: str


class Error(BaseModel):
    error: str = Field(description="one sentence: what is wrong and what to do")


# --- the Open Inference Protocol ----------------------------------------------------------------------------------

class ServerMetadata(BaseModel):
    name: str
    version: str
    extensions: list[str]


class Live(BaseModel):
    live: bool


class Ready(BaseModel):
    ready: bool


class ModelReady(BaseModel):
    name: str
    ready: bool


class TensorMetadata(BaseModel):
    name: str
    datatype: str
    shape: list[int] = Field(description="-1: any length")


class ModelMetadata(BaseModel):
    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


Length = Annotated[int, Whole, Field(ge=1, le=2**31 - 1)]
Id = Annotated[str, Field(max_length=1000)]
MOST_TENSORS = 16  # in a request; the model has one input and two outputs


class InputParameters(BaseModel):
    model_config = ConfigDict(extra="forbid")
    binary_data_size: Annotated[int, Whole, Field(ge=0)] | None = Field(None, description="bytes behind the JSON")


class InputTensor(BaseModel):
    name: str
    shape: Annotated[list[Length], Field(max_length=8)]
    datatype: str
    parameters: InputParameters = InputParameters()
    data: Any = Field(None, description="the values row by row, nested or not")  # checked where it is read


class OutputParameters(BaseModel):
    model_config = ConfigDict(extra="forbid")
    binary_data: StrictBool | None = Field(None, description="bytes behind the JSON?")


class RequestedOutput(BaseModel):
    name: str
    parameters: OutputParameters = OutputParameters()


class RequestParameters(BaseModel):
    binary_data_output: StrictBool = Field(False, description="all outputs as bytes, where they do not say otherwise?")


class InferRequest(BaseModel):
    id: Id | None = None
    parameters: RequestParameters = RequestParameters()
    inputs: Annotated[list[InputTensor], Field(max_length=MOST_TENSORS)]
    outputs: Annotated[list[RequestedOutput], Field(max_length=MOST_TENSORS)] = []


class OutputSize(BaseModel):
    binary_data_size: int


class OutputTensor(BaseModel):
    name: str
    datatype: str
    shape: list[int]
    parameters: OutputSize | None = None
    data: list[int] | None = None


class InferResponse(BaseModel):
    model_config = ConfigDict(protected_namespaces=())  # the protocol's names begin like pydantic's own
    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]
