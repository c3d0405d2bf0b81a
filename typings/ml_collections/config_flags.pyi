"""Types of what is used of ml_collections.config_flags."""

from typing import Any

from absl.flags import FlagHolder
from ml_collections import ConfigDict

def DEFINE_config_file(
    name: str, default: str | None = ..., help_string: str = ..., **flag: Any
) -> FlagHolder[ConfigDict]: ...
def __getattr__(name: str) -> Any: ...
