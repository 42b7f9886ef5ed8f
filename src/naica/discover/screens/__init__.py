"""Screens: declarative filters over a ledger or any table, and the descriptors they ask for."""

from naica.discover.screens.config import ScreenConfig, builtin_screens, read_screen
from naica.discover.screens.run import Screened, screen

__all__ = ["ScreenConfig", "Screened", "builtin_screens", "read_screen", "screen"]
