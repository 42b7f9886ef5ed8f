"""naica: learn properties, potentials and Hamiltonians from structure, and discover new stable materials."""
