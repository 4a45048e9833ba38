"""Which consumer will respond to which campaign. Imports nothing: `fold` needs no torch."""
