"""Kernels in C++ for processors with AVX-512 and bf16, and how Python calls them (`build.py`, `library.py`).

Texts go through a whole block in one call, a few at a time on each thread; one translation unit a kind of block.
"""
