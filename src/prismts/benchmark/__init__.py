"""A specification file becomes cells, cells become tables: studies that resume, one JSON file a cell."""
