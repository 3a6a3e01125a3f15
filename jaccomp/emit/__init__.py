"""Kernels to Cython text: Python decides, the templates spell."""
