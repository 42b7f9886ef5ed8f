"""Atoms and what chemistry knows of them. Knows nothing of tensors or models."""

from naica.structure.crystal import Crystal as Crystal
