"""Keras's optimizers on JAX, for code of every Keras generation. `gradtx.keras` itself speaks Keras 3."""
