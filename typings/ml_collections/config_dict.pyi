"""Types of what is used of ml_collections.config_dict."""

from typing import Any

from ml_collections import ConfigDict as ConfigDict

# A field that may be None: a value of its type, to whoever reads it.
def placeholder(field_type: type) -> Any: ...
def required_placeholder(field_type: type) -> Any: ...
