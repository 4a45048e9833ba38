"""The member's side. Imports nothing, so that a coordinator can use a recipe's fold without torch."""
