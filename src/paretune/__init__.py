"""paretune: which way of adapting this model to my data gives most quality for the memory, time and energy I have?"""

__version__ = "0.1.0"

__all__ = ["__version__"]
