"""Hamiltonians in a basis of atomic orbitals: where they come from, what they tell, and networks that predict them."""
