"""Everything that needs k2: CTC topologies, lattice search offline and online, the lattice form of
the CTC loss.
"""
