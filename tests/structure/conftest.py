import sys
from pathlib import Path

# the crystals of `known.py` are shared by the tests beside it
sys.path.insert(0, str(Path(__file__).parent))
