"""How good and how fair a published model is. Imports nothing: `fold` needs no torch."""
