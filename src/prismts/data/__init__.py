"""Series come in: what they are, how they are read, which ones are known by name, and where they are cut."""
