"""What a table says about all members' consumers at once. Imports nothing: all of it is numpy."""
