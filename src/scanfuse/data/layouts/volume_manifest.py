"""A user's own manifest.csv of volumes: id, group, optional split and target, one NIfTI path column per modality."""

from scanfuse.data.layouts.manifest import CITATION, EXPECTED, HOW_TO_GET, LAYOUT, LICENCE, Options, matches, read

__all__ = ["CITATION", "EXPECTED", "HOW_TO_GET", "KIND", "LAYOUT", "LICENCE", "Options", "matches", "read"]

RANK = 4
KIND = "volumes"
PHANTOM = "volume_manifest"
