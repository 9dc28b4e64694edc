"""Drawn input, for as long as is wanted."""
