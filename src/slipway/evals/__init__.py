"""THE ROOM of measuring: how good are the answers, and is a difference more than chance."""
