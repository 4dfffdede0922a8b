"""How training samples are drawn."""

from pydantic import Field

from scanfuse.config import Section

__all__ = ["SamplingConfig"]


class SamplingConfig(Section):
    """How training samples are drawn."""

    sampling: bool = Field(
        False, description="draw classes equally often", json_schema_extra={"flag": "balanced-sampling"}
    )
