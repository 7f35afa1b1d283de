"""Liver-tumour segmentation on CT: the helpers behind the notebooks. Not a medical device."""

__version__ = "0.1.0"
