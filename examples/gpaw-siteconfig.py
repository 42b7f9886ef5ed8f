# How GPAW is built on any machine that has g++: one process, its own functionals (PBE, revPBE, RPBE, LDA), BLAS by SciPy.
# With libxc, MPI or a tuned BLAS at hand, write your own: https://gpaw.readthedocs.io/install.html
#
#     GPAW_CONFIG=$PWD/examples/gpaw-siteconfig.py pip install --no-cache-dir -c constraints.txt gpaw
mpi = False
compiler = "g++"
nolibxc = True
noblas = True
libraries = []
fftw = False
scalapack = False
