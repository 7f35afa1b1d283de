"""Liver-tumour segmentation on CT: the helpers behind the notebooks. Not a medical device."""

from .files import DataError
from .settings import Settings, load_settings

__version__ = "0.1.0"
__all__ = ["DataError", "Settings", "load_settings"]
