"""Density functional theory as a campaign's oracle: one frozen protocol, several codes, repairs, a cache and corrections."""
