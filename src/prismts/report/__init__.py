"""What was found, to look at: figures, and one HTML page that needs nothing but itself."""
