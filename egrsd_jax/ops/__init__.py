"""Numeric kernels: arrays in, arrays out, no model, no input or output."""
